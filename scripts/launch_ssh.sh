#!/usr/bin/env bash
# A run on hosts that are reached by ssh, one process a host:
#
#     scripts/launch_ssh.sh [--retries N] HOSTS_FILE protloc pretrain --config ... run.out=...
#
# HOSTS_FILE names a host a line ([user@]host, # begins a comment); the first has process 0, where all meet (port
# PROTLOC_PORT, default 12355). ssh must work without questions. The command runs in PROTLOC_DIR (default: this folder's
# path) with the PROTLOC_*, JAX_* and XLA_* variables and the PATH of this shell. When a process fails the others are
# stopped; SIGTERM and Ctrl-C reach all of them, as does a connection that breaks. --retries: where a process or a host
# was lost (see again below), all are started again, at most N times, PROTLOC_PAUSE (20) seconds later.
set -uo pipefail
usage() {
  echo "usage: $0 [--retries N] HOSTS_FILE COMMAND [ARGUMENT ...]" >&2
  exit 2
}
retries=0
if [ "${1:-}" = --retries ]; then
  [ "${2:-}" -ge 0 ] 2>/dev/null || usage
  retries=$2
  shift 2
fi
[ $# -ge 2 ] || usage
if ! [ -r "$1" ]; then
  echo "$0: $1 cannot be read" >&2
  exit 2
fi
hosts=()
while read -r host _ || [ -n "$host" ]; do
  case $host in '' | '#'*) ;; *) hosts+=("${host%%#*}") ;; esac
done <"$1"
if ((${#hosts[@]} == 0)); then
  echo "$0: $1 names no host" >&2
  exit 2
fi
shift
export PROTLOC_COORDINATOR="${hosts[0]#*@}:${PROTLOC_PORT:-12355}" PROTLOC_PROCESSES="${#hosts[@]}"

# Here 255 is ssh's: the connection broke, maybe with the host.
again() { case $1 in 69 | 71 | 75 | 79 | 134 | 135 | 137 | 139 | 255) return 0 ;; *) return 1 ;; esac; }
told=""
pids=()
lines=()
pipes=$(mktemp -d)
trap 'rm -rf "$pipes"' EXIT
# Signals do not travel through ssh: their names go down its standard input, whose end means TERM.
stop() { for line in "${lines[@]}"; do echo "$1" >&"$line"; done; }
on_signal() {
  told=yes
  stop TERM
}
trap on_signal TERM INT

remote() {
  local name words=""
  for name in PATH ${!PROTLOC_@} ${!JAX_@} ${!XLA_@}; do words+=" $(printf '%s=%q' "$name" "${!name}")"; done
  printf 'cd %q && exec 3<&0 && { env%s PROTLOC_PROCESS=%d' "${PROTLOC_DIR:-$PWD}" "$words" "$1"
  shift
  printf ' %q' "$@"
  # shellcheck disable=SC2016
  printf '%s' ' </dev/null 3<&- & child=$!; { while read -r name <&3; do kill -"$name" $child; done; kill -TERM $child;' \
    ' sleep 60; kill -KILL $child; } >/dev/null 2>&1 & reader=$!; wait $child; status=$?; kill $reader; exit $status; }'
}

run_once() {
  pids=()
  lines=()
  local line i
  for ((i = 0; i < ${#hosts[@]}; i++)); do
    mkfifo "$pipes/$i"
    exec {line}<>"$pipes/$i"
    (
      for other in "${lines[@]}" "$line"; do exec {other}>&-; done
      exec > >(sed -u "s/^/[$i] /") 2> >(sed -u "s/^/[$i] /" >&2)
      exec ssh -o BatchMode=yes -o ServerAliveInterval=15 -o ServerAliveCountMax=4 "${hosts[i]}" \
        "$(remote "$i" "$@")" <"$pipes/$i"
    ) &
    pids+=($!)
    lines+=("$line")
  done
  status=0
  local failed=0 running pid code
  while ((${#pids[@]})); do
    sleep 0.5
    running=()
    for pid in "${pids[@]}"; do
      if kill -0 "$pid" 2>/dev/null; then
        running+=("$pid")
      else
        wait "$pid" 2>/dev/null
        code=$?
        # 69 only says that another one failed: that one's status is the reason.
        if ((code)) && ((status == 0 || status == 69)); then status=$code; fi
      fi
    done
    pids=("${running[@]}")
    # 75 is a run that saved and stopped on a signal. After any other failure the rest leave by themselves, saying whom
    # they lost; what is left after 5 s is told to, after 60 s made to.
    if ((status != 0 && status != 75)); then
      ((++failed == 10)) && stop TERM
      ((failed == 120)) && stop KILL
      ((failed == 140)) && ((${#pids[@]})) && kill "${pids[@]}" 2>/dev/null
    fi
  done
  for line in "${lines[@]}"; do exec {line}>&-; done
  rm -f "$pipes"/*
}

# In one block, which bash reads as a whole: the script may change while a run of days goes on.
{
  for ((attempt = 0; ; attempt++)); do
    run_once "$@"
    [ -z "$told" ] || break
    again "$status" && ((attempt < retries)) || break
    echo "launch: status $status; starting on all ${#hosts[@]} hosts again (retry $((attempt + 1)) of $retries)" >&2
    sleep "${PROTLOC_PAUSE:-20}" &
    wait $!
    [ -z "$told" ] || break
  done
  exit "$status"
}
