#!/bin/sh
# Run the whole pipeline on drawn data, on this machine: each stage prints the URI of its result, and later stages take it.
# DATA=real does it on public photos and drawings, which it fetches first. STORE=s3 does the same in object storage, on an S3 server
# that this script starts and ends.
set -eu
# Two data-parallel workers, or one if the machine has a single core.
WORKERS=$(python -c "import os; print(min(2, os.cpu_count() or 1))")
LOCAL=artifacts

if [ "${STORE:-disk}" = s3 ]; then
    . infra/s3_server.sh
    export ZSBIR_ROOT=s3://zsbir-demo/artifacts
fi

if [ "${DATA:-toy}" = real ]; then
    . infra/demo_real.sh
else
    # 21 unseen classes instead of the toy data's usual 7: an interval over classes needs that many to show what training is worth.
    DATASET=$(python -m zsbir.ingest toy --unseen-classes infra/demo_unseen.txt)
    WEIGHTS=$(python -m zsbir.pretrain)
    KNOWLEDGE=$(python -m zsbir.teacher "$DATASET" --backbone resnet18 --weights "$WEIGHTS" --image-px 64)
    # Lower learning rates than the recipe's, and the dev classes trained on too: then no seed of those that were tried gets stuck.
    RUN=$(python -m zsbir.train toy --dataset "$DATASET" --knowledge "$KNOWLEDGE" --num-workers "$WORKERS" \
        --train-on-dev --lr 1e-3 --lr-backbone 3e-4)
    REPORT=$(python -m zsbir.evaluate "$RUN")
    INDEX=$(python -m zsbir.index "$RUN")
fi
if [ "${STORE:-disk}" = s3 ]; then
    python -m zsbir.artifacts list
    python -m zsbir.artifacts verify --all
    # The server's objects are lost when it ends, so the report and the index are copied to this disk, and verified on the way:
    # commands that use the registry later find them there.
    REPORT=$(python -m zsbir.artifacts copy "$REPORT" "$LOCAL" --no-inputs)
    INDEX=$(python -m zsbir.artifacts copy "$INDEX" "$LOCAL" --no-inputs)
fi
. infra/demo_champion.sh

echo
echo "dataset    $DATASET"
[ -z "${KNOWLEDGE:-}" ] || echo "knowledge  $KNOWLEDGE"
echo "run        $RUN"
echo "report     $REPORT"
echo "index      $INDEX"
echo "champion   $CHAMPION"
echo "picture    $REPORT-search.png"
echo "MLflow     make ui"
case "$CHAMPION" in
none*) echo "draw       make search INDEX=$INDEX" ;;
*) echo "draw       make search${DATA:+ DATA=$DATA}" ;;
esac
