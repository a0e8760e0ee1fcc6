#!/usr/bin/env bash
# torch7-pruner's own ratios, one-shot with 20 epochs of retraining and in 10 rounds of 3 epochs; about 8 minutes of a
# core each. The one-shot model is what the package ships as weights/lenet5-pruned.safetensors.
# bash experiments/torch7_pruner/run.sh OUT_DIR
set -euo pipefail
out=${1:?usage: bash experiments/torch7_pruner/run.sh OUT_DIR}
export OMP_NUM_THREADS=1
prune() { python -m tune_prune prune --device cpu --retrain --distill 0.7 --lr 0.03 "$@"; }
prune --epochs 20 --out "$out/one_shot" &
prune --iterations 10 --epochs 3 --out "$out/iterative"
wait
