#!/bin/sh
# What fashion.py's table reads: sh experiments/search_efficiency/fashion.sh OUT_DIR STEPS, from the repository's root,
# after a search into OUT_DIR/run and `fashion.py OUT_DIR search OUT_DIR/run`; STEPS are those of the search, which that
# table adds up, and each method has as many. Skips what is there already: it may be stopped, started again and split over days.
set -eu
out=$1 steps=$2 here=$(dirname "$0")
export OMP_NUM_THREADS=1

prune() { # METHOD FACTOR LR STEPS
    [ -e "$out/$1-$2-$3.csv" ] || python "$here/fashion.py" "$out" "$1" "$2" "$3" "$4"
}

# the targets in the middle come first
for factor in 8 6 10 4 14; do
    prune gradual "$factor" 0.05 $((steps / 5))
    for lr in 0.05 0.1; do # half of the steps each
        prune erk "$factor" "$lr" $((steps / 10))
        prune uniform "$factor" "$lr" $((steps / 10))
    done
done
python "$here/fashion.py" "$out" table
