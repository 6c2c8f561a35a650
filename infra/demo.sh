#!/bin/sh
# The whole pipeline on drawn data, on this machine alone: each stage prints the URI it made, and the next one takes it.
set -eu
# A Ray that was used here before may have left a token; a cluster of one process's own needs none.
export RAY_AUTH_MODE="${RAY_AUTH_MODE:-disabled}"
# Two data-parallel workers, one where the machine has a single core.
WORKERS=$(python -c "import os; print(min(2, os.cpu_count() or 1))")

DATASET=$(python -m zsbir.ingest toy)
WEIGHTS=$(python -m zsbir.pretrain)
KNOWLEDGE=$(python -m zsbir.teacher "$DATASET" --backbone resnet18 --weights "$WEIGHTS" --image-px 64)
RUN=$(python -m zsbir.train toy --dataset "$DATASET" --knowledge "$KNOWLEDGE" --num-workers "$WORKERS")
REPORT=$(python -m zsbir.evaluate "$RUN")
INDEX=$(python -m zsbir.index "$RUN")
python -m zsbir.search "$INDEX" docs/pictures/sketch.png -k 10 --grid "$REPORT-search.png"

echo
echo "dataset    $DATASET"
echo "knowledge  $KNOWLEDGE"
echo "run        $RUN"
echo "report     $REPORT"
echo "index      $INDEX"
echo "MLflow     make ui"
