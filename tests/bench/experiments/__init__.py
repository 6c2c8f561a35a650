"""What each loss earns, and which ideas help: a ledger of trainings, run by hand for hours and taken up again where it ended.

    python -m bench.experiments run --data SHARED/data --weights resnet18=FILE --root DIR [--settings today,quad] [--seeds 0,1,2]
    python -m bench.experiments run ... --final            train on dev classes too, and open the unseen ones
    python -m bench.experiments table --root DIR [--final] [--against today]
    python -m bench.experiments table --ledger docs/benchmarks/LEDGER.jsonl ...       from rows that are kept with a page

`PYTHONPATH=.:tests`. A row is a setting on one data set with one seed: planned until a line with its result stands in
`DIR/experiments.jsonl`. Several of these commands may run side by side on one root: each takes rows that nobody has begun. Settings
are chosen by dev classes; a row with `final` is scored on unseen classes, so it is run once, when the setting is fixed.

To add rows to a ledger that is kept with a page, copy it to `DIR/experiments.jsonl` first: what is done there is not run again.
"""
