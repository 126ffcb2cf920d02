#!/usr/bin/env bash
# Several processes of one run on this machine, joined by jax.distributed:
#
#     scripts/launch_local.sh 2 protloc pretrain --config configs/smoke.py data.records=... run.out=...
#
# For trying a multi-host run out. PROTLOC_PORT chooses the rendezvous port (default 12355). Lines of process i > 0 are
# marked [i]. When a process fails the others are stopped, and its exit status is this script's; SIGTERM and Ctrl-C
# reach all of them.
set -uo pipefail
if [ $# -lt 2 ] || ! [ "$1" -ge 1 ] 2>/dev/null; then
  echo "usage: $0 PROCESSES COMMAND [ARGUMENT ...]" >&2
  exit 2
fi
count=$1
shift
export PROTLOC_COORDINATOR="127.0.0.1:${PROTLOC_PORT:-12355}" PROTLOC_PROCESSES="$count"

pids=()
for ((i = 0; i < count; i++)); do
  (
    mark=""
    ((i == 0)) || mark="[$i] "
    # A terminal gets process 0 as it is (progress bars); elsewhere lines must come whole.
    if ((i > 0)) || ! [ -t 1 ]; then exec > >(sed -u "s/^/$mark/") 2> >(sed -u "s/^/$mark/" >&2); fi
    PROTLOC_PROCESS=$i exec "$@"
  ) &
  pids+=($!)
done
stop() { kill -TERM "${pids[@]}" 2>/dev/null; }
trap stop TERM INT

status=0
while ((${#pids[@]})); do
  sleep 0.2
  running=()
  for pid in "${pids[@]}"; do
    if kill -0 "$pid" 2>/dev/null; then
      running+=("$pid")
    else
      wait "$pid"
      code=$?
      ((status)) || status=$code
    fi
  done
  pids=("${running[@]}")
  # 75 is a run that saved and stopped on a signal; the others are doing the same.
  ((status == 0 || status == 75)) || stop
done
exit "$status"
