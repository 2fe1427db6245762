#!/usr/bin/env bash
# Our own COCO recipe, 8 GPUs: bash scripts/train_coco_best.sh [further flags, which win over those below]
# Found in short trainings on small sets: docs/accuracy.md. Never run in full: by arithmetic (docs/scaling.md) it takes
# 14.5 hours on 8 V100, 116 GPU hours. In short trainings, under some 30 epochs, add --no-crop.
root=$(dirname -- "$0")/..
python=$root/.venv/bin/python
[ -x "$python" ] || python=python3
exec "$python" "$root/train_yolo3_mobilenet.py" --network mobilenet1_0 --dataset coco --gpus 0,1,2,3,4,5,6,7 \
    --batch-size 64 -j 32 --log-interval 100 --epochs 280 --syncbn --warmup-epochs 2 --lr-mode cosine --lr-final 0.05 \
    --optimizer adam --lr 0.001 --wd 0 --multi-anchor 0.3 --objectness-prior 0.01 --ema 0.998 "$@"
