#!/usr/bin/env bash
# Installs what is missing, builds, and runs the tests: unit, golden, install, integration, lint and a short stress run.
# From any directory. The last lines are ctest's summary; the exit status is ctest's.
#
#   tests/run.sh                    everything
#   tests/run.sh -R scheduler       arguments go to ctest
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# A proxy for the internet must not catch calls to this machine.
export no_proxy=${no_proxy:+$no_proxy,}127.0.0.1,localhost

deploy/install-deps.sh --test
[ ! -x tests/python_env.sh ] || tests/python_env.sh

# Debian's tools by their full names: another cmake or Python first on the path may be too new or lack modules.
options=(-DGATEHOUSE_TESTS=ON -DGATEHOUSE_BENCH=ON)
[ ! -x /usr/bin/ccache ] || options+=(-DCMAKE_CXX_COMPILER_LAUNCHER=/usr/bin/ccache)
/usr/bin/cmake --preset cpu "${options[@]}"
/usr/bin/cmake --build --preset cpu --parallel "$(nproc)"

exec /usr/bin/ctest --preset cpu -L '^(unit|golden|install|integration|lint|stress)$' -j2 --no-tests=error "$@" </dev/null
