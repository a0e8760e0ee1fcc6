#!/bin/bash
# A search on a Slurm cluster: one Ray node on every node of the job, the search on the first of them.
#
#     sbatch experiments/cluster/slurm.sh --space lenet5 --budget 500
#     RUN_DIR=$PWD/runs/slurm-1234 sbatch experiments/cluster/slurm.sh     # goes on in that directory
#
# Submit it in a directory that all nodes mount, with tune-prune on the PATH there (a virtual environment, a module).
#SBATCH --job-name=tune-prune
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --output=tune-prune-%j.log
set -euo pipefail

run=${RUN_DIR:-$PWD/runs/slurm-$SLURM_JOB_ID}
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n') # srun hands it on: nobody else joins
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token
on() { srun --nodes=1 --ntasks=1 --nodelist="$1" "${@:2}"; }
ip=$(on "${nodes[0]}" hostname --ip-address | awk '{print $1}')
address=$ip:$((20000 + SLURM_JOB_ID % 20000)) # two jobs on one node have a port each
own=(--num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" --block)

on "${nodes[0]}" ray start --head --node-ip-address="$ip" --port="${address#*:}" --include-dashboard=false "${own[@]}" &
until timeout 60 ray health-check --address "$address" 2>/dev/null; do sleep 2; done
for node in "${nodes[@]:1}"; do
    on "$node" ray start --address="$address" "${own[@]}" &
done
# nodes that come later than the search has begun get trials, too, but are not counted when it says how many fit
python -c "
import sys, time, ray
ray.init(address=sys.argv[1], logging_level='ERROR')
while sum(node['Alive'] for node in ray.nodes()) < int(sys.argv[2]):
    time.sleep(1)
" "$address" "${#nodes[@]}"

if [ -e "$run/run.json" ]; then where=(--resume "$run"); else where=(--run-dir "$run"); fi
tune-prune search --address "$address" "${where[@]}" "$@" &
search=$!
trap 'kill -TERM $search' TERM # two minutes before the job's time is up: everything measured is kept
code=0
wait $search || code=$?
if kill -0 $search 2>/dev/null; then # the signal ended the wait and not the search
    code=0
    wait $search || code=$?
fi
kill $(jobs -p) 2>/dev/null && wait || true # for Ray on all nodes to end
exit $code
