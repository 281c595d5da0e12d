#!/usr/bin/env bash
# Prints the path of a Python that has the packages of tests/requirements.txt: the virtual environment .venv of this
# repository, made (over the network) if it is not there yet.
#
#   tests/python_env.sh            makes it if needed
#   tests/python_env.sh --check    installs nothing: fails, and says so, if it is not ready
#   tests/python_env.sh --deploy   the same for tests/deploy/requirements.txt in .venv-deploy (also before --check)
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
requirements=tests/requirements.txt
flags=
if [ "${1-}" = --deploy ]; then
  venv=$root/.venv-deploy
  requirements=tests/deploy/requirements.txt
  flags=" --deploy"
  shift
fi
python=$venv/bin/python
stamp=$venv/gatehouse-requirements

is_ready() { [ -x "$python" ] && cmp -s "$root/$requirements" "$stamp"; }

case ${1-} in
  "") ;;
  --check)
    is_ready && { echo "$python"; exit 0; }
    echo "python_env.sh: no Python environment with $requirements; make it with: tests/python_env.sh$flags" >&2
    exit 1
    ;;
  *) echo "python_env.sh: unknown argument $1 (see the top of the script)" >&2; exit 2 ;;
esac

mkdir -p "$venv"
exec 9>"$venv/lock"
flock 9 # two test runs in one clone must not install over each other
if ! is_ready; then
  # Debian's Python, if it can make environments: another one first on the path may lack wheels.
  base=/usr/bin/python3
  "$base" -c 'import ensurepip' 2>/dev/null || base=python3
  echo "python_env.sh: installing $requirements into $venv" >&2
  "$base" -m venv "$venv" >&2
  "$python" -m pip install --quiet --disable-pip-version-check --retries 5 -r "$root/$requirements" >&2
  cp "$root/$requirements" "$stamp"
fi
echo "$python"
