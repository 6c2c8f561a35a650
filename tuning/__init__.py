"""Sweeps: from a space of configurations and a budget to the best one, with Ray Tune. `python -m tuning --help`.

config   what a sweep does and where its trials run
space    what may vary: ranges and choices over the fields of a training, as data
table    the record of a sweep: one row a trial, Parquet in storage, written at every change
suggest  which configuration comes next: a function of space, table, seed and number
trial    one trial: a training that reports its dev scores to Ray Tune
study    Ray Tune around the trials: which run, which are stopped early, what is recorded
sweep    all of these in order: a recipe and a space in, a Sweep artifact out
outcome  the best trial, and which fields mattered
report   the outcome as YAML, tables and pictures
"""
