#!/usr/bin/env bash
# Installs the Debian 12 packages Gatehouse needs. Quick when nothing is missing: one dpkg query, no network.
#
#   deploy/install-deps.sh               to build and run the server
#   deploy/install-deps.sh --test        and to build and run the tests
#   deploy/install-deps.sh --tools       and for .ci/run: clang, formatting, linting
#   deploy/install-deps.sh --containers  and to build and run the image and check manifests
#   deploy/install-deps.sh --dry-run     print the missing packages and change nothing (combines with the others)
#
# Uses sudo only when packages are missing and the user is not root.
set -euo pipefail

build_packages=(
  build-essential ca-certificates ccache cmake curl git ninja-build pkg-config
  libgrpc++-dev protobuf-compiler-grpc grpc-proto libprotobuf-dev protobuf-compiler libssl-dev zlib1g-dev
  libabsl-dev prometheus-cpp-dev nlohmann-json3-dev libyaml-cpp-dev libcli11-dev libpcre2-dev libutf8proc-dev libgloo-dev
)
test_packages=(
  libgtest-dev libgmock-dev libbenchmark-dev prometheus python3 python3-venv iproute2
)
tools_packages=(
  clang-14 clang-format-14 clang-tidy-14 libclang-rt-14-dev lld-14 shellcheck
)
container_packages=(
  binutils podman runc conmon containernetworking-plugins iptables mmdebstrap python3 python3-venv
  prometheus prometheus-alertmanager yamllint
)

packages=("${build_packages[@]}")
dry_run=
for argument in "$@"; do
  case $argument in
    --test) packages+=("${test_packages[@]}") ;;
    --tools) packages+=("${test_packages[@]}" "${tools_packages[@]}") ;;
    --containers) packages+=("${container_packages[@]}") ;;
    --dry-run) dry_run=1 ;;
    -h | --help) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "install-deps.sh: unknown argument $argument (see --help)" >&2; exit 2 ;;
  esac
done

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  echo "install-deps.sh: needs apt-get (Debian 12); install by hand: ${packages[*]}" >&2
  exit 1
fi

# dpkg-query fails when it does not know a package: those are missing too.
installed=$(dpkg-query -W -f='${db:Status-Abbrev}${Package}\n' "${packages[@]}" 2>/dev/null | sed -n 's/^ii *//p') || true
missing=()
for package in "${packages[@]}"; do
  grep -qxF "$package" <<<"$installed" || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0
if [ -n "$dry_run" ]; then
  printf '%s\n' "${missing[@]}"
  exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || {
    echo "install-deps.sh: not root and no sudo; as root run: apt-get install ${missing[*]}" >&2
    exit 1
  }
  as_root=(sudo)
fi

# Tests start Prometheus themselves: keep apt from starting it as a service.
policy=/usr/sbin/policy-rc.d
if [[ " ${missing[*]} " == *" prometheus"* ]] && [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
  "${as_root[@]}" chmod 755 "$policy"
  trap '"${as_root[@]}" rm -f "$policy"' EXIT
fi

echo "installing: ${missing[*]}"
apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
"${apt[@]}" update -qq
"${apt[@]}" install -y -qq --no-install-recommends "${missing[@]}" </dev/null
