"""The only modules of this package that import Ray or MLflow. Variables that those libraries read when imported are set here."""

import os

# Under `uv run`, Ray would upload the working directory, data and artifacts included, and build an environment for each worker.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
# Lines of workers come without colour codes: they are read in logs, too.
os.environ.setdefault("RAY_COLOR_PREFIX", "0")
# Train prints every worker's line twice without this.
os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
# Nothing here reads announcements of preemptions, and the actor that polls for them makes Ray print an error line at each start.
os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
# Ray would take a minute without room in the cluster for a failure of the training. It waits instead, for as long as it takes.
os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "10000000")
# A server that does not answer must not hold the work up: one short try. Its address, which may hold a password, is not printed.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("PGCONNECT_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
