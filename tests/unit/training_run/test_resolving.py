from __future__ import annotations

import pytest

from zsbir.base.errors import InputError
from zsbir.training.config import TrainConfig
from zsbir.training_run.plan import InputUris, Settings, resolve


@pytest.mark.parametrize("variable", ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"])
def test_one_of_several_processes_that_a_launcher_started_is_refused_with_the_way_out(monkeypatch, variable):
    """Each of them would train the whole run, or find the lock of the first one and end all."""
    monkeypatch.setenv(variable, "2")
    with pytest.raises(InputError, match=rf"2 processes were started.*\({variable}=2\).*--num-workers 2"):
        resolve(TrainConfig(), InputUris(dataset="anywhere"), Settings())


@pytest.mark.parametrize("count", ["1", "", "many"])
def test_a_single_process_is_not(monkeypatch, count):
    monkeypatch.setenv("WORLD_SIZE", count)
    with pytest.raises(InputError, match="no dataset given"):
        resolve(TrainConfig(), InputUris(), Settings())


def test_several_workers_on_one_gpu_are_refused_and_a_single_one_may_hold_a_part(monkeypatch):
    """NCCL ends with "Duplicate GPU detected", which used to be tried again as a lost worker is."""
    for variable in ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(InputError, match=r"gpus_per_worker 0\.5 lets workers share a GPU.*give each a whole one"):
        resolve(TrainConfig(), InputUris(), Settings(num_workers=2, gpus_per_worker=0.5))
    for settings in (Settings(num_workers=1, gpus_per_worker=0.5), Settings(num_workers=2, gpus_per_worker=1)):
        with pytest.raises(InputError, match="no dataset given"):
            resolve(TrainConfig(), InputUris(), settings)
