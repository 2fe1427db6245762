#!/usr/bin/env bash
# From a fresh clone to detections: set up, make a sample data set, train on it, evaluate, draw.
#   bash scripts/quickstart.sh [--cpu|--gpu]
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "$0")/.."

# Two CPU cores train this in 9 minutes. No augmentation: a mirrored 2 looks like a 5. From random weights the warmup,
# the prior and further anchors decide, and new scenes teach more than known ones: docs/accuracy.md.
SCENES=6000 NETWORK=mobilenet0_25 SIZE=160 EPOCHS=3
SCHEDULE="--batch-size 8 --lr 0.006 --lr-mode cosine --warmup-epochs 1 --objectness-prior 0.01 --multi-anchor 0.3
          --no-random-shape --no-augment"

step() { printf '\n=== %s\n' "$*"; }

step 'Set-up'
bash scripts/setup.sh "$@"
if [ -e .venv/installed/requirements.txt ]; then gpus=0; else gpus=''; fi

step 'Sample data set: handwritten digits'
.venv/bin/python scripts/make_digits.py --out data/digits --train $SCENES

step "Training: $NETWORK at $SIZE pixels, $EPOCHS epochs"
.venv/bin/python train_yolo3_mobilenet.py --network $NETWORK --no-pretrained-base --gpus "$gpus" -j 1 \
    --dataset voc --dataset-root data/digits --classes 0,1,2,3,4,5,6,7,8,9 \
    --train-splits 2007_trainval --val-splits 2007_test --data-shape $SIZE --epochs $EPOCHS $SCHEDULE \
    --save-prefix runs/quickstart/ --resume auto
best=runs/quickstart/yolo3_${NETWORK}_voc_best.params

step 'Evaluation on the held-out scenes'
.venv/bin/python eval_yolo3.py --params $best --gpus "$gpus" -j 1 \
    --dataset-root data/digits --val-splits 2007_test --json runs/quickstart/eval.json

step 'Detections'
.venv/bin/python demo.py --params $best --gpus "$gpus" --out-dir runs/quickstart/pictures --thresh auto \
    data/digits/VOC2007/JPEGImages/digits_test_0000?.jpg

step 'Done'
.venv/bin/python -c 'import json
print("mAP (VOC07): %.4f" % json.load(open("runs/quickstart/eval.json"))["values"]["mAP"])'
echo "Pictures: $PWD/runs/quickstart/pictures"
