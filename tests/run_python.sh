#!/usr/bin/env bash
# Runs a script with the Python of tests/python_env.sh.
set -euo pipefail
python=$("$(dirname "${BASH_SOURCE[0]}")/python_env.sh" --check)
export PYTHONDONTWRITEBYTECODE=1
exec "$python" "$@"
