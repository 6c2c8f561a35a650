"""How Ray Train is set up for a training."""

from __future__ import annotations

import logging
from types import SimpleNamespace

from ray.train.v2._internal.logging.logging import TrainLogLevelFilter

from zsbir.base.storage import open_folder
from zsbir.edge.ray_train import _trainer, _Worker


def test_what_ray_tries_again_by_itself_is_not_told_to_the_user_and_its_errors_are(tmp_path):
    settings = SimpleNamespace(num_workers=2, cpus_per_worker=1, gpus_per_worker=0, max_failures=3)
    trainer = _trainer(_Worker(lambda _job, _context: None, SimpleNamespace()), open_folder(str(tmp_path)), settings)
    shown = TrainLogLevelFilter(trainer.run_config.logging_config.log_level)
    name = "ray.train.v2._internal.execution.scaling_policy.autoscaling_coordinator_client"
    told = [
        level
        for level in (logging.INFO, logging.WARNING, logging.ERROR)
        if shown.filter(logging.LogRecord(name, level, __file__, 1, "Failed to send resource request", (), None))
    ]
    assert told == [logging.ERROR]
