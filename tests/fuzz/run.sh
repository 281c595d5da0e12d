#!/usr/bin/env bash
# Runs the fuzz targets of build/fuzz, as many at once as there are cores, each for some seconds over its corpus.
# What reaches new code stays in build/fuzz/corpus; a finding lies in build/fuzz/findings, and the exit status is 1.
#
#   tests/fuzz/run.sh 30               all targets, 30 s each
#   tests/fuzz/run.sh 600 tokenizer    one
#   FUZZ_SEED=1 tests/fuzz/run.sh 30   the same inputs each time, as far as the seconds go
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

run_one() {
  local name=$1 seconds=$2
  local found=build/fuzz/corpus/$name findings=build/fuzz/findings log=build/fuzz/$name.log
  mkdir -p "$found" "$findings"
  # Longer inputs only take more time; 20 s or 3 GiB for one of them is a finding, too.
  if ! UBSAN_OPTIONS=print_stacktrace=1 "build/fuzz/bin/${name}_fuzz" "$found" "tests/fuzz/corpus/$name" \
      -max_total_time="$seconds" -seed="${FUZZ_SEED:-0}" -max_len=8192 -timeout=20 -rss_limit_mb=3072 \
      -artifact_prefix="$findings/$name-" >"$log" 2>&1; then
    grep -vE '^#[0-9]+\s' "$log" | tail -60
    echo "fuzz: $name: FAILED (see $log)"
    return 1
  fi
  echo "fuzz: $name: $(tail -1 "$log")"
}
export -f run_one

[ $# -ge 1 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
seconds=$1
shift
[ $# -gt 0 ] || {
  mapfile -t targets < <(find tests/fuzz -name '*_fuzz.cc' -printf '%f\n' | sed 's/_fuzz\.cc$//' | sort)
  set -- "${targets[@]}"
}
printf '%s\n' "$@" | xargs -P "$(nproc)" -I{} bash -c "set -euo pipefail; run_one {} $seconds"
echo "fuzz: no finding in $# targets"
