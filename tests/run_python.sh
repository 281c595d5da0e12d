#!/usr/bin/env bash
# Runs a script with the Python of tests/python_env.sh; with --deploy in front, that of tests/python_env.sh --deploy.
set -euo pipefail
environment=()
[ "${1-}" != --deploy ] || { environment=(--deploy); shift; }
python=$("$(dirname "${BASH_SOURCE[0]}")/python_env.sh" "${environment[@]}" --check)
export PYTHONDONTWRITEBYTECODE=1
exec "$python" "$@"
