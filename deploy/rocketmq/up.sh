#!/usr/bin/env bash
# Starts a real Apache RocketMQ on this machine without containers: a name server, and one JVM with broker and
# proxy (gRPC). Running it again is fine. Stop with down.sh. Needs Java 17+, Rust, and mvn for the first start.
#
# Settings (environment):
#   ROCKETMQ_DIR             state: jars, conf, store, logs, pid files   (<repo>/.rocketmq)
#   ROCKETMQ_PROXY_PORT      gRPC, what a service connects to            (8081)
#   ROCKETMQ_REMOTING_PORT   the proxy's port for old clients            (8080)
#   ROCKETMQ_NAMESRV_PORT    name server                                 (9876)
#   ROCKETMQ_BROKER_PORT     broker; it also opens port-2 and port+1     (10911)
#   ROCKETMQ_KEEP=1          keep the messages of the last run           (a fresh store)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dir=${ROCKETMQ_DIR:-$here/../../.rocketmq}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
java=${JAVA_HOME:+$JAVA_HOME/bin/}java

die() { echo "up.sh: $*" >&2; exit 1; }
# Is the process of this pid file still the JVM that we started? A pid alone may have been reused.
alive() { # name
  local pid
  pid=$(cat "$dir/$1.pid" 2>/dev/null) && [[ -n $pid ]] &&
    tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -F -- "-Duser.home=$dir " >/dev/null
}
accepts() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
admin() { "$target/debug/rocketmq-admin" --quiet --namesrv "127.0.0.1:$namesrv" "$@"; }
# A TCP connect is not readiness: the broker must have registered, so ask for the route of the topics.
answers() { accepts "$proxy" && admin topic wait --within "$1s" logger_report_event logger_report_user; }
point() {
  echo "name server 127.0.0.1:$namesrv, broker 127.0.0.1:$broker, proxy 127.0.0.1:$proxy (gRPC); settings in $dir/env"
  echo "point a service at it: KRATOS_ROCKETMQ__ENDPOINTS=127.0.0.1:$proxy"
}

# What creates topics and groups, and asks whether they are known.
command -v cargo >/dev/null || die "cargo not found: install Rust"
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-target}
[[ $target == /* ]] || target=$root/$target
(cd "$root" && cargo build -q -p rocketmq-admin) || die "rocketmq-admin does not build"

# Two at once would share a store. The JVMs must not inherit this lock (9>&- below).
exec 9>"$dir/lock"
flock -w 300 9 || die "another up.sh is at work in $dir"

if alive namesrv && alive broker && [[ -f $dir/env ]]; then
  for v in ROCKETMQ_NAMESRV_PORT ROCKETMQ_BROKER_PORT ROCKETMQ_PROXY_PORT ROCKETMQ_REMOTING_PORT; do
    has=$(sed -n "s/^$v=//p" "$dir/env")
    [[ -z ${!v:-} || ${!v} == "$has" ]] ||
      die "already running with $v=$has, not ${!v}: down.sh first, or another ROCKETMQ_DIR"
    declare "$v=$has"
  done
  namesrv=$ROCKETMQ_NAMESRV_PORT broker=$ROCKETMQ_BROKER_PORT proxy=$ROCKETMQ_PROXY_PORT
  answers 10 || die "runs but does not answer: see $dir/logs, then down.sh and up.sh"
  echo "already running"
  point
  exit 0
fi
"$here/down.sh" >/dev/null # half of one, or what a crash left behind

namesrv=${ROCKETMQ_NAMESRV_PORT:-9876}
broker=${ROCKETMQ_BROKER_PORT:-10911}
proxy=${ROCKETMQ_PROXY_PORT:-8081}
remoting=${ROCKETMQ_REMOTING_PORT:-8080}
for p in "$namesrv" "$broker" "$proxy" "$remoting"; do
  [[ $p =~ ^[1-9][0-9]{0,4}$ ]] && ((p > 2 && p < 65535)) || die "not a port: '$p'"
done
ports=("$namesrv" "$broker" $((broker - 2)) $((broker + 1)) "$proxy" "$remoting")
twice=$(printf '%s\n' "${ports[@]}" | sort | uniq -d)
[[ -z $twice ]] || die "port $twice is used twice (the broker opens $((broker - 2)), $broker and $((broker + 1)))"
for p in "${ports[@]}"; do
  ! accepts "$p" || die "port $p is taken by another program: set ROCKETMQ_*_PORT"
done

command -v "$java" >/dev/null || die "java not found: install Java 17 or newer"
version=$("$java" -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p')
[[ ${version:-0} -ge 17 ]] || die "Java 17 or newer is needed, found ${version:-an unknown version}"

# The jars: fetched once, and again when pom.xml changes. Moved into place whole, so an interrupted fetch never counts.
if ! cmp -s "$here/pom.xml" "$dir/lib/pom.xml"; then
  command -v mvn >/dev/null || die "mvn not found: install Maven (it fetches the server's jars, about 100 MB, once)"
  echo "fetching the server's jars with Maven ..."
  rm -rf "$dir/lib" "$dir/lib.part"
  timeout 900 mvn -q -B -Dstyle.color=never -f "$here/pom.xml" dependency:copy-dependencies \
    -DoutputDirectory="$dir/lib.part" -DincludeScope=runtime </dev/null || die "Maven could not fetch the jars"
  cp "$here/pom.xml" "$dir/lib.part/pom.xml"
  mv "$dir/lib.part" "$dir/lib"
fi

[[ ${ROCKETMQ_KEEP:-} == 1 ]] || rm -rf "$dir/store"
rm -rf "$dir/logs"
mkdir -p "$dir/conf" "$dir/store" "$dir/logs"

cat >"$dir/conf/namesrv.properties" <<EOF
listenPort=$namesrv
bindAddress=127.0.0.1
EOF
# Small files (a fresh store costs little disk), SQL filters, delayed messages and recall on, quick transaction checks.
cat >"$dir/conf/broker.conf" <<EOF
brokerClusterName=DefaultCluster
brokerName=broker-a
brokerId=0
brokerIP1=127.0.0.1
brokerIP2=127.0.0.1
bindAddress=127.0.0.1
listenPort=$broker
haListenPort=$((broker + 1))
namesrvAddr=127.0.0.1:$namesrv
storePathRootDir=$dir/store
storePathCommitLog=$dir/store/commitlog
mappedFileSizeCommitLog=67108864
maxIndexNum=100000
maxHashSlotNum=50000
flushDiskType=ASYNC_FLUSH
autoCreateTopicEnable=true
autoCreateSubscriptionGroup=true
enablePropertyFilter=true
timerWheelEnable=true
recallMessageEnable=true
transactionTimeOut=3000
transactionCheckInterval=3000
diskMaxUsedSpaceRatio=95
deleteWhen=04
fileReservedTime=2
EOF
cat >"$dir/conf/rmq-proxy.json" <<EOF
{
  "rocketMQClusterName": "DefaultCluster",
  "proxyMode": "local",
  "namesrvAddr": "127.0.0.1:$namesrv",
  "localServeAddr": "127.0.0.1",
  "grpcServerPort": $proxy,
  "remotingListenPort": $remoting
}
EOF

deadline=$((SECONDS + 180))
# setsid and no inherited descriptors: neither a Ctrl-C at the caller's terminal reaches the server,
# nor does the server hold a caller's pipe open.
launch() { # name, heap options, main class and arguments
  local name=$1 heap=$2
  shift 2
  # shellcheck disable=SC2086 # the heap options are several words
  ROCKETMQ_HOME="$dir" setsid "$java" "-Duser.home=$dir" $heap \
    --add-opens java.base/java.nio=ALL-UNNAMED --add-opens java.base/sun.nio.ch=ALL-UNNAMED \
    --add-opens java.base/java.lang=ALL-UNNAMED -cp "$dir/conf:$dir/lib/*" "$@" \
    </dev/null >"$dir/logs/$name.out" 2>&1 9>&- &
  echo $! >"$dir/$name.pid"
}
failed() { # name, what
  echo "up.sh: $2; the end of $dir/logs/$1.out:" >&2
  tail -n 40 "$dir/logs/$1.out" >&2 || true
  "$here/down.sh" >/dev/null || true
  exit 1
}
# Repeats a command until it works. Ends early when the process is gone; shows the command's last complaint.
until_works() { # name, command...
  local name=$1
  shift
  sleep 0.3 # the new process is still this shell for a moment
  until "$@" >/dev/null 2>"$dir/logs/wait.err"; do
    alive "$name" || failed "$name" "the $name process ended"
    if ((SECONDS >= deadline)); then
      cat "$dir/logs/wait.err" >&2
      failed "$name" "the $name is not ready after 180 s"
    fi
    sleep 0.5
  done
}

launch namesrv "-Xms128m -Xmx256m" org.apache.rocketmq.namesrv.NamesrvStartup -c "$dir/conf/namesrv.properties"
until_works namesrv accepts "$namesrv"
launch broker "-Xms512m -Xmx2g -XX:MaxDirectMemorySize=1g -XX:+UseG1GC -XX:ParallelGCThreads=2" \
  org.apache.rocketmq.proxy.ProxyStartup -n "127.0.0.1:$namesrv" -pm local \
  -bc "$dir/conf/broker.conf" -pc "$dir/conf/rmq-proxy.json"
# What the service needs, with the types and the retry policy that it has in production.
until_works broker admin topic create logger_report_event:NORMAL logger_report_user:NORMAL
until_works broker admin group create logger-saver:retry=16:backoff=1s-10s
until_works broker answers 1
until_works broker accepts "$remoting"

# Written last: it exists only while a server runs. Unquoted numbers, so a shell and a parser can both read it.
cat >"$dir/env" <<EOF
ROCKETMQ_NAMESRV_PORT=$namesrv
ROCKETMQ_BROKER_PORT=$broker
ROCKETMQ_PROXY_PORT=$proxy
ROCKETMQ_REMOTING_PORT=$remoting
NAMESRV_PID=$(cat "$dir/namesrv.pid")
SERVER_PID=$(cat "$dir/broker.pid")
EOF
echo "RocketMQ is ready"
point
