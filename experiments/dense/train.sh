#!/usr/bin/env bash
# The recipes of the pretrained weights in tune_prune/tasks/weights; one core each, about 8, 3 and 9 minutes at 2.5 GHz.
# bash experiments/dense/train.sh OUT_DIR
set -euo pipefail
out=${1:?usage: bash experiments/dense/train.sh OUT_DIR}
export OMP_NUM_THREADS=1
train() { python -m tune_prune train --data mnist --augment --seed 0 --device cpu --out "$out/$1.safetensors" --model "$@"; }
train lenet5 --epochs 40 --lr 0.05 --weight-decay 5e-4
train lenet_300_100 --epochs 100 --lr 0.1 --weight-decay 1e-4
train lenet5_caffe --epochs 40 --lr 0.05 --weight-decay 5e-4
