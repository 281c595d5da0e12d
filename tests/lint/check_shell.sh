#!/usr/bin/env bash
# Lints every shell script that git would commit. Exit 77 (skipped) without shellcheck.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
command -v shellcheck >/dev/null || { echo "no shellcheck: deploy/install-deps.sh --tools"; exit 77; }
scripts=()
while IFS= read -r -d '' file; do
  [ ! -f "$file" ] || ! head -1 -- "$file" | grep -qE '^#!.*\b(ba)?sh\b' || scripts+=("$file")
done < <(git ls-files -co --exclude-standard -z -- '*.sh' .ci deploy tests)
shellcheck -x "${scripts[@]}"
echo "${#scripts[@]} scripts"
