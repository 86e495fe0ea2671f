#!/usr/bin/env bash
# Stops what up.sh started in ROCKETMQ_DIR (<repo>/.rocketmq), and nothing else. Fine when nothing runs.
# The jars, the store and the logs stay.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dir=${ROCKETMQ_DIR:-$here/../../.rocketmq}
dir=$(cd "$dir" 2>/dev/null && pwd) || { echo "not running"; exit 0; }

# Is this process still the JVM that up.sh started? A pid may have been reused by now: then it is not ours to stop.
ours() { [[ -n $1 ]] && tr '\0' ' ' 2>/dev/null <"/proc/$1/cmdline" | grep -F -- "-Duser.home=$dir " >/dev/null; }
gone() { # pid, seconds
  for ((i = 0; i < $2 * 10; i++)); do
    ours "$1" || return 0
    sleep 0.1
  done
  return 1
}

rm -f "$dir/env"
stopped=0
for name in broker namesrv; do # the broker first: it says good-bye to the name server
  file=$dir/$name.pid
  [[ -f $file ]] || continue
  pid=$(cat "$file")
  if ours "$pid"; then
    kill -TERM "$pid" 2>/dev/null || true # it may have ended meanwhile
    if ! gone "$pid" 30; then
      echo "$name ($pid) did not stop in 30 s: killed" >&2
      kill -KILL "$pid" 2>/dev/null || true
      gone "$pid" 5 || { echo "down.sh: $name ($pid) is still there" >&2; exit 1; }
    fi
    echo "stopped $name ($pid)"
    stopped=1
  fi
  rm -f "$file"
done
((stopped)) || echo "not running"
