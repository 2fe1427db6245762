#!/usr/bin/env bash
# The original's COCO recipe, 8 GPUs: bash scripts/train_coco.sh [further flags, which win over those below]
root=$(dirname -- "$0")/..
python=$root/.venv/bin/python
[ -x "$python" ] || python=python3
exec "$python" "$root/train_yolo3_mobilenet.py" --network mobilenet1_0 --dataset coco --gpus 0,1,2,3,4,5,6,7 \
    --batch-size 64 -j 32 --log-interval 100 --lr-decay-epoch 220,250 --epochs 280 --syncbn --warmup-epochs 2 \
    --mixup --no-mixup-epochs 20 --label-smooth --no-wd "$@"
