#!/usr/bin/env bash
# The original's VOC recipe, 8 GPUs: bash scripts/train_voc.sh [further flags, which win over those below]
root=$(dirname -- "$0")/..
python=$root/.venv/bin/python
[ -x "$python" ] || python=python3
exec "$python" "$root/train_yolo3_mobilenet.py" --network mobilenet1_0 --dataset voc --gpus 0,1,2,3,4,5,6,7 \
    --batch-size 64 -j 16 --log-interval 100 --lr-decay-epoch 160,180 --epochs 200 --syncbn --warmup-epochs 4 "$@"
