"""A dispatcher that is killed at a moment of its choice: `dispatcher_that_dies.py MOMENT STORE ROOT`."""

import os
import signal
import sys

from services.jobs.queue.store import open_store
from services.jobs.runs.dispatcher import Dispatcher
from services.jobs.runs.ray_jobs import RayJobs
from services.jobs.runs.settings import DispatcherSettings


class Dying(RayJobs):
    """SIGKILLs this process around the call that starts a job."""

    def start(self, task):
        if sys.argv[1] == "after the start":
            super().start(task)
        os.kill(os.getpid(), signal.SIGKILL)


dispatcher = Dispatcher(open_store(sys.argv[2]), Dying(os.environ["RAY_API_SERVER_ADDRESS"]), DispatcherSettings(root=sys.argv[3]))
while True:
    dispatcher.round()
