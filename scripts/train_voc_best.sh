#!/usr/bin/env bash
# Our own VOC recipe, 8 GPUs: bash scripts/train_voc_best.sh [further flags, which win over those below]
# Found in short trainings on small sets: docs/accuracy.md. Never run in full: by arithmetic (docs/scaling.md) it takes
# 1.4 hours on 8 V100, 11.5 GPU hours. In short trainings, under some 30 epochs, add --no-crop.
root=$(dirname -- "$0")/..
python=$root/.venv/bin/python
[ -x "$python" ] || python=python3
exec "$python" "$root/train_yolo3_mobilenet.py" --network mobilenet1_0 --dataset voc --gpus 0,1,2,3,4,5,6,7 \
    --batch-size 64 -j 16 --log-interval 100 --epochs 200 --syncbn --warmup-epochs 4 --lr-mode cosine --lr-final 0.05 \
    --optimizer adam --lr 0.001 --wd 0 --multi-anchor 0.3 --objectness-prior 0.01 --ema 0.998 "$@"
