#!/bin/sh
# Everything that table.py reads: sh experiments/search_efficiency/all.sh OUT_DIR, from the repository's root.
# Skips what is there already: it may be stopped, started again and split over days.
set -eu
out=$1 here=$(dirname "$0")
export OMP_NUM_THREADS=1 # the driver's idle threads would count as CPU time
mkdir -p "$out"

dense=$out/dense.safetensors
[ -e "$dense" ] || python -m tune_prune train --model lenet_300_100 --epochs 60 --lr 0.1 --weight-decay 5e-4 --out "$dense"

for seed in 0 1 2 3 4; do
    [ -e "$out/plain-$seed.csv" ] || python "$here/plain.py" "$out" "$seed"
    [ -e "$out/whole-$seed.csv" ] || python "$here/ours.py" "$out" whole "$seed"
done

for part in refine warm_start initial_trials learn_from_rounds early_stopping; do
    for seed in 0 1 2; do
        [ -e "$out/$part-$seed.csv" ] || python "$here/ours.py" "$out" "$part" "$seed"
    done
done

# one core each, and two at a time, as the trials of the others
for run in random-0 random-1 random-2 random-3 random-4 \
    uniform-0 uniform-1 uniform-2 global-0 global-1 global-2 erk-0 erk-1 erk-2 nsga2-0 nsga2-1 nsga2-2; do
    [ -e "$out/$run.csv" ] || echo "$run"
done | xargs -P 2 -I RUN sh -c 'python "$0/baselines.py" "$1" "${2%-*}" "${2#*-}" 700' "$here" "$out" RUN

# and lenet5, from the package's dense model, once
[ -e "$out/lenet5/plain-0.csv" ] || { mkdir -p "$out/lenet5" && python "$here/plain.py" "$out/lenet5" 0 30 lenet5; }
[ -e "$out/lenet5/whole-0.csv" ] || python "$here/ours.py" "$out/lenet5" whole 0 100 0.5 lenet5
