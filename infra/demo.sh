#!/bin/sh
# The whole pipeline on drawn data, on this machine alone: each stage prints the URI it made, and the next one takes it.
# STORE=s3: the same through object storage, in an S3 server that is started here and ends with the demo.
set -eu
# A Ray that was used here before may have left a token; a cluster of one process's own needs none.
export RAY_AUTH_MODE="${RAY_AUTH_MODE:-disabled}"
# Two data-parallel workers, one where the machine has a single core.
WORKERS=$(python -c "import os; print(min(2, os.cpu_count() or 1))")
LOCAL=artifacts

if [ "${STORE:-disk}" = s3 ]; then
    . infra/s3_server.sh
    export ZSBIR_ROOT=s3://zsbir-demo/artifacts
fi

DATASET=$(python -m zsbir.ingest toy)
WEIGHTS=$(python -m zsbir.pretrain)
KNOWLEDGE=$(python -m zsbir.teacher "$DATASET" --backbone resnet18 --weights "$WEIGHTS" --image-px 64)
RUN=$(python -m zsbir.train toy --dataset "$DATASET" --knowledge "$KNOWLEDGE" --num-workers "$WORKERS")
REPORT=$(python -m zsbir.evaluate "$RUN")
INDEX=$(python -m zsbir.index "$RUN")
MODEL=$(python -m zsbir.promote "$REPORT" --index "$INDEX")
if [ "${STORE:-disk}" = s3 ]; then
    python -m zsbir.artifacts list
    python -m zsbir.artifacts verify --all
    # What the server holds ends with it: what one looks at afterwards is copied here, checked on its way.
    REPORT=$(python -m zsbir.artifacts copy "$REPORT" "$LOCAL" --no-inputs)
    INDEX=$(python -m zsbir.artifacts copy "$INDEX" "$LOCAL" --no-inputs)
fi
python -m zsbir.search "$INDEX" docs/pictures/sketch.png -k 10 --grid "$REPORT-search.png"

echo
echo "dataset    $DATASET"
echo "knowledge  $KNOWLEDGE"
echo "run        $RUN"
echo "report     $REPORT"
echo "index      $INDEX"
echo "champion   $MODEL"
echo "MLflow     make ui"
