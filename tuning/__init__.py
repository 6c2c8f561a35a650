"""Sweeps: from a space of configurations and a budget to the best one, with Ray Tune. `python -m tuning --help`.

space    what may vary: ranges and choices over the fields of a training, as data
table    the truth: one row a trial, Parquet in storage, written at every change
suggest  which configuration comes next: a function of space, table, seed and number
trial    one trial: a training that tells Ray Tune its dev scores
study    Ray Tune around them: who runs, who is stopped early, what is recorded
report   the best configuration as YAML, tables and pictures
"""
