#!/usr/bin/env bash
# From a fresh clone on Debian 12 to streamed text: installs what is missing, builds, starts the server on the demo
# model, sends a prompt, stops the server. Works from any directory; what is done already is skipped.
#
#   deploy/quickstart.sh                       with a prompt of its own
#   deploy/quickstart.sh "In the beginning"    with yours
#   deploy/quickstart.sh --keep                leaves a server running on 127.0.0.1:50051, or uses the one it left
#   deploy/quickstart.sh --seed 7              another continuation
#   deploy/quickstart.sh --model locmoe        another folder of models/ than demo
set -euo pipefail
# A proxy for the internet must not catch calls to this machine.
export no_proxy=${no_proxy:+$no_proxy,}127.0.0.1,localhost
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

prompt="It is a truth universally acknowledged, that"
seed=4
model=demo
keep=
while [ $# -gt 0 ]; do
  case $1 in
    --keep) keep=1 ;;
    --seed) seed=${2:?"quickstart: --seed needs a number"}; shift ;;
    --model) model=${2:?"quickstart: --model needs a folder of models/"}; shift ;;
    -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
    -*) echo "quickstart: unknown flag $1 (see --help)" >&2; exit 2 ;;
    *) prompt=$1 ;;
  esac
  shift
done

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'quickstart: %s\n' "$*" >&2; exit 1; }

bin=$root/build/cpu/bin
[ -f "$root/models/$model/config.json" ] || fail "models/$model: no such model"
run_dir=$root/build/quickstart/$model
[ -z "$keep" ] || run_dir+=/kept # of a server that still runs when another quickstart begins
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

# Sets target, metrics and kept_pid from the ready file.
read_ready_file() {
  target=$(sed -n 's/.*"listen": *"\([^"]*\)".*/\1/p' "$ready_file")
  metrics=$(sed -n 's/.*"metrics": *"\([^"]*\)".*/\1/p' "$ready_file")
  kept_pid=$(sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' "$ready_file")
}

start_server() {
  rm -f "$ready_file"
  # Its own session: Ctrl-C here goes to the client, and this script stops the server in order.
  setsid "$bin/gatehouse-server" --model "$root/models/$model" --listen "$1" --metrics-listen "$2" \
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
  read_ready_file
  echo "serves on $target, metrics on http://$metrics/metrics"
}

say "Server on models/$model"
# With --keep the default port, so that clients find it; else any free one, so that nothing is in the way.
kept_target=127.0.0.1:50051
if [ -z "$keep" ]; then
  start_server 127.0.0.1:0 127.0.0.1:0
elif [ -s "$ready_file" ] && read_ready_file && kill -0 "$kept_pid" 2>/dev/null &&
  "$bin/gatehouse" health --target "$kept_target" --timeout 5 >/dev/null 2>&1; then
  echo "serves on $target already, metrics on http://$metrics/metrics"
else
  start_server "$kept_target" 127.0.0.1:9464
fi

say "Prompt"
echo "gatehouse generate '$prompt' --temperature 0.8 --seed $seed --max-new-tokens 120"
echo
printf '%s' "$prompt"
GATEHOUSE_TARGET=$target "$bin/gatehouse" generate "$prompt" --temperature 0.8 --seed "$seed" --max-new-tokens 120 --stats

if [ -n "$keep" ]; then
  server_pid=
  say "The server goes on (process $kept_pid); stop it with: kill $kept_pid"
  printf '\nWhat to try now (in %s):\n' "$root"
else
  stop_server
  say "The server has stopped"
  printf '\nWhat to try next (in %s); the first leaves a server running for those below it:\n' "$root"
  echo "  deploy/quickstart.sh --keep"
fi
cat <<NEXT
  build/cpu/bin/gatehouse generate 'In the beginning' --temperature 0.8 --stats
  build/cpu/bin/gatehouse generate 'Enter HAMLET' --json --top-logprobs 3 --routed-experts --max-new-tokens 5
  build/cpu/bin/gatehouse info
  curl -s http://127.0.0.1:9464/metrics | grep gatehouse_expert_tokens_total
  tests/run.sh                         # build and run the tests
NEXT
