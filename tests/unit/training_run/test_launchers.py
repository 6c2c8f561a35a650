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
    with pytest.raises(InputError, match="no data set"):
        resolve(TrainConfig(), InputUris(), Settings())
