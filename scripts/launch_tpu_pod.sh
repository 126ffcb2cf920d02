#!/usr/bin/env bash
# A run on all hosts of a Cloud TPU slice, from a machine with gcloud:
#
#     scripts/launch_tpu_pod.sh [--retries N] NAME ZONE protloc pretrain --config ... run.out=/mnt/runs/...
#
# The package is installed on every host already. The processes find their places by themselves. The command runs in
# PROTLOC_DIR (default: the home folder). SIGTERM and Ctrl-C reach all processes. --retries: where a process was lost or
# the slice was preempted (see again below), all are started again, at most N times, as soon as the slice is READY;
# whoever uses spot slices lets a queued resource make a new one under the same name.
set -uo pipefail
usage() {
  echo "usage: $0 [--retries N] NAME ZONE COMMAND [ARGUMENT ...]" >&2
  exit 2
}
retries=0
if [ "${1:-}" = --retries ]; then
  [ "${2:-}" -ge 0 ] 2>/dev/null || usage
  retries=$2
  shift 2
fi
[ $# -ge 3 ] || usage
name=$1
zone=$2
shift 2

# 255 is ssh's: the connection broke, maybe with the host.
again() { case $1 in 69 | 71 | 75 | 79 | 134 | 135 | 137 | 139 | 255) return 0 ;; *) return 1 ;; esac; }
on_all() { gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$1"; }
# shellcheck disable=SC2016
noted='"/tmp/protloc-$USER.pid"'
told=""
on_signal() {
  told=yes
  on_all "kill -TERM \$(cat $noted)"
}
trap on_signal TERM INT
log=$(mktemp)
trap 'rm -f "$log"' EXIT

remote="cd $(printf '%q' "${PROTLOC_DIR:-.}") && echo \$\$ > $noted && exec$(printf ' %q' "$@")"
# In one block, which bash reads as a whole: the script may change while a run of days goes on.
{
  for ((attempt = 0; ; attempt++)); do
    on_all "$remote" 2> >(tee "$log" >&2) &
    running=$!
    wait "$running"
    status=$?
    while kill -0 "$running" 2>/dev/null; do
      wait "$running"
      status=$?
    done
    # gcloud has one status for all hosts and names theirs in its messages; 69 only says that another one failed.
    for code in $(sed -n 's/.*failed with exit status \([0-9]*\).*/\1/p' "$log") ""; do
      if [ -n "$code" ]; then status=$code; fi
      [ "$code" = 69 ] || break
    done
    [ -z "$told" ] || break
    again "$status" && ((attempt < retries)) || break
    echo "launch: status $status; starting on all hosts of $name again (retry $((attempt + 1)) of $retries)" >&2
    until [ "$(gcloud compute tpus tpu-vm describe "$name" --zone="$zone" --format='value(state)')" = READY ]; do
      sleep "${PROTLOC_PAUSE:-30}" &
      wait $!
      [ -z "$told" ] || exit "$status"
    done
  done
  exit "$status"
}
