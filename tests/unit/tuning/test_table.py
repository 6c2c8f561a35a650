import pytest

from tuning.table import TABLE, Table, Trial, as_parquet, read_trials
from zsbir.base.errors import InputError
from zsbir.base.storage import open_folder


def test_every_change_is_in_storage_at_once(root):
    folder = open_folder(f"{root}/sweeps/a")
    table = Table(folder)
    table.begin(Trial(0, "base", {"lr": 1e-3, "batch_norm": "frozen"}, run="runs/x"))
    assert Table(folder).trials == table.trials
    table.scored(0, 40, 0.25, stopped=False)
    table.scored(0, 80, 0.2, stopped=False)
    table.spent(0, 12.5)
    table.spent(0, 1.5)
    assert Table(folder).trials == table.trials
    read = Table(folder).trial(0)
    assert (read.scores, read.best, read.seconds, read.state) == (((40, 0.25), (80, 0.2)), (40, 0.25), 14.0, "begun")
    table.end(0, "finished")
    assert Table(folder).trial(0).state == "finished"
    assert Table(folder).trial(0).ended_utc


def test_score_and_decision_come_together_and_an_end_stays(root):
    table = Table(open_folder(f"{root}/sweeps/a"))
    table.begin(Trial(0, "random", {}))
    table.scored(0, 40, 0.1, stopped=True)
    table.end(0, "failed", error="too late")
    assert (table.trial(0).state, table.trial(0).error) == ("stopped", "")


def test_only_failed_trials_that_are_named_are_opened_again(root):
    table = Table(open_folder(f"{root}/sweeps/a"))
    for number in range(2):
        table.begin(Trial(number, "random", {}))
        table.end(number, "failed", error="a\nb")
    table.reopen([1])
    assert [(trial.state, trial.error) for trial in table.trials] == [("failed", "a\nb"), ("begun", "")]


@pytest.mark.parametrize("data", [b"", b"not parquet", b"PAR1" + bytes(20) + b"PAR1"])
def test_a_damaged_table_is_told_in_a_line(root, data):
    folder = open_folder(f"{root}/sweeps/a")
    folder.replace(TABLE, data)
    with pytest.raises(InputError, match="cannot be read"):
        Table(folder)


def test_a_table_of_other_columns_is_refused():
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(pa.table({"number": [1]}), out)
    with pytest.raises(InputError, match="cannot be read"):
        read_trials(out.getvalue())


def test_parquet_and_back():
    trials = [Trial(0, "base", {"a": [1, 2], "b": None}), Trial(1, "tpe", {"a": "x"}, "failed", error="é", scores=((1, 0.5),))]
    assert read_trials(as_parquet(trials)) == trials
