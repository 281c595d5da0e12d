#!/usr/bin/env bash
# C++ as .clang-format has it. With --fix the files are rewritten. Exit 77 (skipped) without clang-format-14.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
command -v clang-format-14 >/dev/null || { echo "no clang-format-14: deploy/install-deps.sh --tools"; exit 77; }
mode=(--dry-run -Werror)
[ "${1:-}" != --fix ] || mode=(-i)
git ls-files -co --exclude-standard -z '*.cc' '*.h' | xargs -0 -r clang-format-14 "${mode[@]}"
