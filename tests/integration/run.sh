#!/usr/bin/env bash
# Runs one script of this folder with the Python of tests/python_env.sh; ctest sets GATEHOUSE_* (CMakeLists.txt).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=$("$here/../python_env.sh" --check)
# A proxy for the internet must not catch calls to this machine.
export no_proxy=127.0.0.1,localhost PYTHONDONTWRITEBYTECODE=1
export PYTHONPATH=$here:$GATEHOUSE_STUB_DIR
exec "$python" "$here/$1" "${@:2}"
