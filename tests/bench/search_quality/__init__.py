"""What search options gain and cost on real data: run by hand, for hours, and taken up again where it ended.

    python -m bench.search_quality run --data SHARED/data --weights FILE --root DIR            dev classes
    python -m bench.search_quality run ... --split unseen --settings off,default               once a setting is final
    python -m bench.search_quality table --root DIR

`PYTHONPATH=.:tests`. Each row is a setting on one data set, one seed and one thinned gallery, with its state, result and minutes,
in `DIR/search-quality.jsonl`; rows that are there are not computed again. Trainings and embeddings are kept below DIR as well.
"""
