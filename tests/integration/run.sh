#!/usr/bin/env bash
# Runs one script of this folder; ctest sets GATEHOUSE_* (CMakeLists.txt).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# A proxy for the internet must not catch calls to this machine.
export no_proxy=127.0.0.1,localhost
export PYTHONPATH=$here:$GATEHOUSE_STUB_DIR
exec "$here/../run_python.sh" "$here/$1" "${@:2}"
