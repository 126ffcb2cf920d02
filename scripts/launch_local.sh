#!/usr/bin/env bash
# Several processes of one run on this machine:
#
#     scripts/launch_local.sh [--retries N] 2 protloc pretrain --config configs/smoke.py data.records=... run.out=...
#
# For trying a multi-host run out, and for a machine whose devices are driven by several processes. PROTLOC_PORT chooses
# the port where they meet (default 12355). Lines of process i > 0 are marked [i]. When a process fails the others are
# stopped, and its exit status is this script's; SIGTERM and Ctrl-C reach all of them. --retries: where a process was
# lost or the machine took it (see again below), all are started again, at most N times, PROTLOC_PAUSE (5) seconds later.
set -uo pipefail
usage() {
  echo "usage: $0 [--retries N] PROCESSES COMMAND [ARGUMENT ...]" >&2
  exit 2
}
retries=0
if [ "${1:-}" = --retries ]; then
  [ "${2:-}" -ge 0 ] 2>/dev/null || usage
  retries=$2
  shift 2
fi
if [ $# -lt 2 ] || ! [ "$1" -ge 1 ] 2>/dev/null; then usage; fi
count=$1
shift
# bash would add a line of this script for every process that is killed.
exec 3>&2 2>/dev/null
export PROTLOC_COORDINATOR="127.0.0.1:${PROTLOC_PORT:-12355}" PROTLOC_PROCESSES="$count"

# Whether the same command may do better: 69 lost, 71 a worker died, 75 preempted, 79 stuck; killed, aborted, crashed.
again() { case $1 in 69 | 71 | 75 | 79 | 134 | 135 | 137 | 139) return 0 ;; *) return 1 ;; esac; }
told=""
pids=()
stop() { ((${#pids[@]} == 0)) || kill -"$1" "${pids[@]}" 2>/dev/null; }
on_signal() {
  told=yes
  stop TERM
}
trap on_signal TERM INT

run_once() {
  pids=()
  for ((i = 0; i < count; i++)); do
    (
      exec 2>&3 3>&-
      mark=""
      ((i == 0)) || mark="[$i] "
      # A terminal gets process 0 as it is (progress bars); elsewhere lines must come whole.
      if ((i > 0)) || ! [ -t 1 ]; then exec > >(sed -u "s/^/$mark/") 2> >(sed -u "s/^/$mark/" >&2); fi
      PROTLOC_PROCESS=$i exec "$@"
    ) &
    pids+=($!)
  done
  status=0
  local failed=0 running pid code
  while ((${#pids[@]})); do
    sleep 0.2
    running=()
    for pid in "${pids[@]}"; do
      if kill -0 "$pid" 2>/dev/null; then
        running+=("$pid")
      else
        wait "$pid"
        code=$?
        # 69 only says that another one failed: that one's status is the reason.
        if ((code)) && ((status == 0 || status == 69)); then status=$code; fi
      fi
    done
    pids=("${running[@]}")
    # 75 is a run that saved and stopped on a signal; the others are doing the same. After any other failure the rest
    # leave by themselves, saying whom they lost; what is left after 3 s is told to, after 40 s made to.
    if ((status != 0 && status != 75)); then
      ((++failed == 15)) && stop TERM
      ((failed == 200)) && stop KILL
    fi
  done
}

# In one block, which bash reads as a whole: the script may change while a run of days goes on.
{
  for ((attempt = 0; ; attempt++)); do
    run_once "$@"
    [ -z "$told" ] || break
    again "$status" && ((attempt < retries)) || break
    echo "launch: status $status; starting all $count processes again (retry $((attempt + 1)) of $retries)" >&3
    sleep "${PROTLOC_PAUSE:-5}" &
    wait $!
    [ -z "$told" ] || break
  done
  exit "$status"
}
