#!/usr/bin/env bash
# clang-tidy-14 over our .cc files, two at a time.
#
#   tests/lint/run_clang_tidy.sh BUILD_DIR                 all of them
#   tests/lint/run_clang_tidy.sh BUILD_DIR --since REF     those changed since REF (headers: all of them)
#
# BUILD_DIR is a configured and built preset (generated protobuf headers must exist). What was changed last comes first.
# After TIDY_SECONDS (default: no limit) no further file is begun; the files left out are named, and that is no failure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
build_dir=${1:?usage: run_clang_tidy.sh BUILD_DIR [--since REF]}
deadline=$((SECONDS + ${TIDY_SECONDS:-86400}))

mapfile -t compiled < <(/usr/bin/python3 - "$build_dir" <<'PYTHON'
import json, os, subprocess, sys
root = os.getcwd() + "/"
entries = json.load(open(sys.argv[1] + "/compile_commands.json"))
files = {os.path.relpath(entry["file"], root) for entry in entries if entry["file"].startswith(root)}
log = subprocess.run(["git", "log", "--format=", "--name-only"], capture_output=True, text=True).stdout.split("\n")
age = {name: i for i, name in reversed(list(enumerate(log)))}  # position of the last change
ours = [f for f in files if f.split("/")[0] in ("engine", "kernels", "server", "client")]
print("\n".join(sorted(ours, key=lambda f: (age.get(f, -1), f))))
PYTHON
)
files=("${compiled[@]}")
if [ "${2:-}" = --since ]; then
  changed=$(git diff --name-only "${3:?--since needs a commit}" -- '*.cc' '*.h' .clang-tidy)
  if ! grep -qE '\.h$|^\.clang-tidy$' <<<"$changed"; then
    files=()
    for file in "${compiled[@]}"; do
      ! grep -qxF "$file" <<<"$changed" || files+=("$file")
    done
  fi
fi

failed=0
left_out=()
check() { clang-tidy-14 -p "$build_dir" --quiet "$@" 2>/dev/null; }
for ((i = 0; i < ${#files[@]}; i += 2)); do
  if ((SECONDS >= deadline)); then
    left_out=("${files[@]:i}")
    break
  fi
  check "${files[i]}" & first=$!
  second=
  if ((i + 1 < ${#files[@]})); then check "${files[i + 1]}" & second=$!; fi
  wait "$first" || failed=1
  [ -z "$second" ] || wait "$second" || failed=1
done
[ ${#left_out[@]} -eq 0 ] || printf 'not checked, time was up: %s\n' "${left_out[@]}"
echo "clang-tidy: $((${#files[@]} - ${#left_out[@]})) of ${#compiled[@]} files, $([ $failed = 0 ] && echo clean || echo problems above)"
exit $failed
