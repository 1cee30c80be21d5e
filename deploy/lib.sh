# Shared by deploy/demo and deploy/test; sourced, never run. Sets FLUX_ROOT and works from there.
# shellcheck shell=bash

set -euo pipefail
export LC_ALL=C.UTF-8
SECONDS=0

FLUX_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$FLUX_ROOT"

# The protobuf linter; a later release may bring rules of its own, so the version is fixed.
BUF_VERSION=1.50.0
# A compiler of generated code takes up to 1 GB, so that very many at once would run out of memory.
: "${FLUX_JOBS:=$(n=$(nproc); echo $((n > 8 ? 8 : n)))}"

# step WORDS…: a heading with the seconds since the start.
step() { printf '[%4ds] ==> %s\n' "$SECONDS" "$*"; }
# note WORDS…: a line below a heading.
note() { printf '            %s\n' "$*"; }
# die WHAT WAY_OUT…: says what went wrong and what to do about it, and stops.
die() {
  printf '\nerror: %s\n' "$1" >&2
  shift
  [ $# -eq 0 ] || printf '       %s\n' "$@" >&2
  exit 1
}

# packages_missing SECTION: the section's packages that are neither installed nor stood in for by a command.
packages_missing() {
  local section="" wanted="$1" package command
  while read -r package command; do
    case "$package" in
      '' | '#'*) continue ;;
      '['*) section=${package//[\[\]]/}; continue ;;
    esac
    [ "$section" = "$wanted" ] || continue
    if [ -n "$command" ] && command -v "$command" >/dev/null; then continue; fi
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
  done <deploy/packages.txt
}

# install_packages SECTION…: installs what is missing from deploy/packages.txt; nothing when all is there.
install_packages() {
  local missing=() section
  command -v dpkg-query >/dev/null || die "this is not a Debian system (no dpkg-query)" \
    "Flux is built and tested on Debian 12; elsewhere install the equivalents of deploy/packages.txt" \
    "and run: cmake --preset release && cmake --build --preset release"
  for section in "$@"; do
    mapfile -t -O "${#missing[@]}" missing < <(packages_missing "$section")
  done
  if [ ${#missing[@]} -eq 0 ]; then
    step "packages: all there"
    return
  fi
  step "packages: installing ${missing[*]}"
  [ "$(id -u)" -eq 0 ] || die "packages are missing and only root can install them" \
    "run once as root: apt-get install --no-install-recommends ${missing[*]}"
  local log=build/apt.log
  mkdir -p build
  export DEBIAN_FRONTEND=noninteractive
  if ! { apt-get -q update && apt-get -qy -o Dpkg::Options::=--force-confold -o Dpkg::Use-Pty=0 \
    install --no-install-recommends "${missing[@]}"; } >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    die "apt-get could not install the packages above" \
      "the whole output is in $log; check the network and /etc/apt/sources.list, then run this again"
  fi
}

# install_buf: puts the protobuf linter into build/tools, by npm.
install_buf() {
  local buf=build/tools/node_modules/.bin/buf log=build/npm.log
  if [ -x "$buf" ] && [ "$("$buf" --version 2>/dev/null)" = "$BUF_VERSION" ]; then
    step "protobuf linter: buf $BUF_VERSION is there"
    return
  fi
  step "protobuf linter: installing buf $BUF_VERSION into build/tools"
  mkdir -p build/tools
  local try
  for try in 1 2 3; do
    if npm install --prefix build/tools --no-save --no-audit --no-fund --ignore-scripts \
      "@bufbuild/buf@$BUF_VERSION" >"$log" 2>&1 </dev/null; then
      break
    fi
    [ "$try" -lt 3 ] || {
      tail -n 10 "$log" >&2
      die "npm could not install @bufbuild/buf@$BUF_VERSION" \
        "the whole output is in $log; check npm's registry and proxy (npm config list), then run this again"
    }
    note "npm failed, trying again ($try of 3)"
  done
  [ "$("$buf" --version 2>/dev/null)" = "$BUF_VERSION" ] ||
    die "buf was installed but does not run: $buf" "remove build/tools and run this again"
}

# build PRESET [TARGET…]: configures and builds build/PRESET; quiet unless it fails.
build() {
  local preset=$1 log=build/$1.log
  shift
  mkdir -p build
  # Lets a compiler cache serve clones in other folders too.
  export CCACHE_BASEDIR=$FLUX_ROOT CCACHE_NOHASHDIR=1
  step "build: configuring build/$preset"
  cmake --preset "$preset" >"$log" 2>&1 || {
    tail -n 40 "$log" >&2
    die "configuring build/$preset failed" "the whole output is in $log"
  }
  step "build: compiling build/$preset with $FLUX_JOBS jobs (about 10 minutes the first time on two cores)"
  local targets=()
  [ $# -eq 0 ] || targets=(--target "$@")
  # One line a tenth of the way; the whole output goes to the log.
  local status=0
  cmake --build "build/$preset" -j "$FLUX_JOBS" "${targets[@]}" 2>&1 | tee -a "$log" |
    awk -F'[][/]' '/^\[[0-9]+\/[0-9]+\]/ { tenth = int(10 * $2 / $3); if (tenth > last) { last = tenth
      printf "            %d of %d\n", $2, $3; fflush() } }' || status=$?
  [ "$status" -eq 0 ] || {
    grep -E -A 12 'error:|FAILED:|ninja:' "$log" | head -n 60 >&2
    die "building build/$preset failed" "the whole output is in $log" \
      "if the compiler was killed, memory ran out: set FLUX_JOBS=1 and run this again"
  }
}
