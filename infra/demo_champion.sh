# To be sourced by demo.sh, with REPORT and INDEX set: asks the gate, and searches with the champion. Sets CHAMPION.
# MODEL_NAME is the model's name in the registry, SKETCH the drawing to search with.
# What the demo made last is what it shows: --gallery index keeps no photos of an earlier one.
# The demo may be run again and again. The gate may keep the champion of an earlier run: that is an answer, not a failure.
MODEL_NAME=${MODEL_NAME:-zsbir-demo}
SKETCH=${SKETCH:-docs/pictures/sketch.png}
CHAMPION=models:/$MODEL_NAME@champion
STATUS=0
MODEL=$(python -m zsbir.promote "$REPORT" --index "$INDEX" --gallery index --model "$MODEL_NAME") || STATUS=$?
if [ "$STATUS" = 2 ]; then
    echo "demo: the champion of an earlier demo cannot be compared with, for the reason above; this training takes its place" >&2
    STATUS=0
    MODEL=$(python -m zsbir.promote "$REPORT" --index "$INDEX" --gallery index --model "$MODEL_NAME" \
        --force --reason "the champion of an earlier demo could not be compared with") || STATUS=$?
fi
case "$STATUS" in
0) CHAMPION=$MODEL ;;
1)
    echo "demo: the gate did not promote this training; the line above says why, with the numbers. That is what a gate is for: another" >&2
    echo "demo: number of threads makes another network, and it has to be shown to be better. The search goes on with the champion." >&2
    ;;
*) exit "$STATUS" ;;
esac
if ! python -m zsbir.search "models:/$MODEL_NAME@champion" "$SKETCH" -k 10 --grid "$REPORT-search.png"; then
    echo "demo: no champion can be searched with, for the reason above; here is this training's own index" >&2
    CHAMPION="none that can be searched with"
    python -m zsbir.search "$INDEX" "$SKETCH" -k 10 --grid "$REPORT-search.png"
fi
