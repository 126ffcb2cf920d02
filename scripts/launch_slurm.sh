#!/usr/bin/env bash
# A run on Slurm, one process a node; resources are sbatch's own options:
#
#     sbatch --nodes=4 --gpus-per-node=8 --cpus-per-task=32 --time=24:00:00 \
#         scripts/launch_slurm.sh protloc pretrain --config ... run.out=...
#
# The processes find their places by themselves. Two minutes before the time limit they get SIGTERM, save and end with
# status 75; the job then puts itself back into the queue and goes on from there, as it does when a process was lost
# (69), was stuck (79), lost a data worker (71) or crashed; at most PROTLOC_RETRIES (100) times. A job that is cancelled,
# or that Slurm itself preempts, is left to Slurm.
#SBATCH --ntasks-per-node=1
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%j.out
set -uo pipefail
if [ $# -lt 1 ]; then
  echo "usage: sbatch [OPTION ...] $0 COMMAND [ARGUMENT ...]" >&2
  exit 2
fi
if [ -z "${SLURM_JOB_ID:-}" ]; then
  echo "$0 is a script for sbatch: sbatch --nodes=N ... $0 $*" >&2
  exit 2
fi
again() { case $1 in 69 | 71 | 75 | 79 | 134 | 135 | 137 | 139) return 0 ;; *) return 1 ;; esac; }
told=""
on_signal() {
  told=yes
  kill -TERM "$step" 2>/dev/null
}
trap on_signal TERM INT

# The processes leave together and say why; srun's own way of ending them would cut that short.
srun --ntasks-per-node=1 --kill-on-bad-exit=0 --wait=180 --label "$@" &
step=$!
wait "$step"
status=$?
while kill -0 "$step" 2>/dev/null; do
  wait "$step"
  status=$?
done
if [ -z "$told" ] && again "$status"; then
  if ((${SLURM_RESTART_COUNT:-0} >= ${PROTLOC_RETRIES:-100})); then
    echo "launch: status $status, and the job has been started again ${SLURM_RESTART_COUNT} times: giving up" >&2
  elif scontrol requeue "$SLURM_JOB_ID"; then
    echo "launch: status $status; the job is back in the queue" >&2
  fi
fi
exit "$status"
