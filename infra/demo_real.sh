# To be sourced by demo.sh: fetches public photos and drawings, trains and evaluates on classes that ImageNet's labels do not name, and
# indexes the photos of all classes. DOWNLOAD="..." is passed to zsbir.download.
DOWNLOAD=${DOWNLOAD:-}
FOLDER=$(python -m zsbir.download caltech-quickdraw $DOWNLOAD)
DATASET=$(python -m zsbir.ingest folder "$FOLDER" --name caltech-quickdraw --unseen-classes "$FOLDER/unseen.txt")
RUN=$(python -m zsbir.train folder --dataset "$DATASET" --weights "$FOLDER/resnet18.pth" --train-on-dev)
REPORT=$(python -m zsbir.evaluate "$RUN")
INDEX=$(python -m zsbir.index "$RUN" --split all)
MODEL_NAME=zsbir-demo-real
# The first drawing of the first unseen class.
SKETCH=$(find "$FOLDER/sketch/$(head -n 1 "$FOLDER/unseen.txt")" -name '*.png' | sort | head -n 1)
