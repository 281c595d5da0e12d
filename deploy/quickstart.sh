#!/usr/bin/env bash
# From a fresh clone on Debian 12 to streamed text: installs what is missing, builds, starts the server on the demo
# model, sends a prompt, stops the server. Works from any directory; what is done already is skipped.
#
#   deploy/quickstart.sh                       with a prompt of its own
#   deploy/quickstart.sh "In the beginning"    with yours
#   deploy/quickstart.sh --keep                leaves the server running on 127.0.0.1:50051
#   deploy/quickstart.sh --seed 7              another continuation
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

prompt="It is a truth universally acknowledged, that"
seed=4
keep=
while [ $# -gt 0 ]; do
  case $1 in
    --keep) keep=1 ;;
    --seed) seed=${2:?"quickstart: --seed needs a number"}; shift ;;
    -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0 ;;
    -*) echo "quickstart: unknown flag $1 (see --help)" >&2; exit 2 ;;
    *) prompt=$1 ;;
  esac
  shift
done

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'quickstart: %s\n' "$*" >&2; exit 1; }

bin=$root/build/cpu/bin
run_dir=$root/build/quickstart
mkdir -p "$run_dir"
ready_file=$run_dir/ready.json
log=$run_dir/server.log
server_pid=

stop_server() {
  [ -n "$server_pid" ] || return 0
  kill -TERM "$server_pid" 2>/dev/null || true
  wait "$server_pid" || echo "quickstart: the server ended with $?; its log: $log" >&2
  server_pid=
}
trap stop_server EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say "Packages"
"$root/deploy/install-deps.sh"
echo "all there"

say "Build (preset cpu; the first time takes some minutes)"
# Debian's cmake by its full name: another one first on the path may be too new.
options=(-DGATEHOUSE_TESTS=OFF -DGATEHOUSE_BENCH=OFF)
[ ! -f "$root/build/cpu/CMakeCache.txt" ] || options=() # a configured tree keeps its options
[ ! -x /usr/bin/ccache ] || options+=(-DCMAKE_CXX_COMPILER_LAUNCHER=/usr/bin/ccache)
(cd "$root" && /usr/bin/cmake --preset cpu "${options[@]}") >"$run_dir/configure.log" 2>&1 ||
  { tail -20 "$run_dir/configure.log" >&2; fail "cannot configure; the whole log: $run_dir/configure.log"; }
(cd "$root" && /usr/bin/cmake --build --preset cpu --parallel "$(nproc)" --target gatehouse-server gatehouse) ||
  fail "cannot build"

say "Server on models/demo"
# With --keep the default port, so that clients find it; else any free one, so that nothing is in the way.
listen=127.0.0.1:0
metrics_listen=127.0.0.1:0
if [ -n "$keep" ]; then
  listen=127.0.0.1:50051
  metrics_listen=127.0.0.1:9464
fi
rm -f "$ready_file"
# Its own session: Ctrl-C here goes to the client, and this script stops the server in order.
setsid "$bin/gatehouse-server" --model "$root/models/demo" --listen "$listen" --metrics-listen "$metrics_listen" \
  --ready-file "$ready_file" </dev/null >"$log" 2>&1 &
server_pid=$!
for ((i = 0; i < 600; ++i)); do
  [ ! -s "$ready_file" ] || break
  if ! kill -0 "$server_pid" 2>/dev/null; then
    status=0
    wait "$server_pid" || status=$?
    server_pid=
    tail -5 "$log" >&2
    fail "the server ended with $status; its log: $log"
  fi
  sleep 0.1
done
[ -s "$ready_file" ] || fail "the server was not ready after a minute; its log: $log"
target=$(sed -n 's/.*"listen": *"\([^"]*\)".*/\1/p' "$ready_file")
metrics=$(sed -n 's/.*"metrics": *"\([^"]*\)".*/\1/p' "$ready_file")
echo "serves on $target, metrics on http://$metrics/metrics"

say "Prompt"
echo "gatehouse generate '$prompt' --temperature 0.8 --seed $seed --max-new-tokens 120"
echo
printf '%s' "$prompt"
GATEHOUSE_TARGET=$target "$bin/gatehouse" generate "$prompt" --temperature 0.8 --seed "$seed" --max-new-tokens 120 --stats

if [ -n "$keep" ]; then
  say "The server goes on (process $server_pid); stop it with: kill $server_pid"
  server_pid=
else
  stop_server
  say "The server has stopped; deploy/quickstart.sh --keep leaves it running"
fi
cat <<NEXT

What to try then (in $root):
  build/cpu/bin/gatehouse generate 'In the beginning' --temperature 0.8 --stats
  build/cpu/bin/gatehouse generate 'Enter HAMLET' --json --top-logprobs 3 --routed-experts --max-new-tokens 5
  build/cpu/bin/gatehouse info
  curl -s http://127.0.0.1:9464/metrics | grep gatehouse_expert_tokens_total
  tests/run.sh                         # build and run the tests
NEXT
