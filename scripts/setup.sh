#!/usr/bin/env bash
# Installs what building and testing need and is missing: Debian or Ubuntu packages, and the Python environment .venv.
# Does nothing, in well under a second, when all is there.
#
#   scripts/setup.sh [lint] [quickstart] [fuzz] [package]     what `make lint`, `make quickstart`, ... need too
#   scripts/setup.sh program [quickstart]           of the Python environment only torch, which the program links
#
# SWITCHYARD_PACKAGES=skip leaves system packages alone (not a Debian system, or they come from elsewhere).
set -euo pipefail
export LC_ALL=C
cd "$(dirname "${BASH_SOURCE[0]}")/.."

packages=(cmake ninja-build g++ make git python3 python3-venv python3-dev nlohmann-json3-dev libcli11-dev libtomlplusplus-dev
          libsentencepiece-dev libcpp-httplib-dev zlib1g-dev libzstd-dev libgtest-dev libgmock-dev libbenchmark-dev)
# Faster builds, and a test on emulated processors: skipped where the system does not offer them.
helpful=(ccache mold qemu-user)
requirements=(-r requirements.txt)
for group in "$@"; do
  case "$group" in
    program) requirements=("$(grep '^torch==' requirements.txt)") ;;
    lint) packages+=(clang-format clang-tidy libomp-dev) ;;  # libomp-dev: clang's omp.h
    quickstart) packages+=(dict-gcide perl-doc) ;;
    fuzz) packages+=(clang libclang-rt-dev) ;;
    package) packages+=(zstd) ;;
    *) echo "setup: unknown group '$group'; known: lint, quickstart, fuzz, package, program" >&2; exit 2 ;;
  esac
done

# Prints those of its arguments that dpkg does not list as installed.
missing_packages() {
  local installed
  installed=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "$@" 2>/dev/null | sed -n 's/ installed$//p' || true)
  comm -23 <(printf '%s\n' "$@" | sort -u) <(sort -u <<<"$installed")
}

install_packages() {
  local missing privileged=()
  mapfile -t missing < <(missing_packages "${packages[@]}")
  mapfile -t wanted < <(missing_packages "${helpful[@]}")
  # A missing helper alone is no reason to ask for a package manager.
  if ((${#missing[@]} == 0)); then return; fi
  if [[ $EUID -ne 0 ]]; then
    if sudo -n true 2>/dev/null; then
      privileged=(sudo -n)
    else
      echo "setup: missing packages, and no right to install them. Run this, then \`make setup\` again:" >&2
      echo "  sudo apt-get update && sudo apt-get install --no-install-recommends ${missing[*]} ${wanted[*]}" >&2
      exit 1
    fi
  fi
  echo "setup: installing ${missing[*]} ${wanted[*]}"
  "${privileged[@]}" apt-get -qq update
  local offered=()
  for package in "${wanted[@]}"; do
    if apt-cache show "$package" >/dev/null 2>&1; then offered+=("$package"); fi
  done
  "${privileged[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get -qq install -y --no-install-recommends "${missing[@]}" "${offered[@]}" </dev/null
}

if [[ "${SWITCHYARD_PACKAGES:-}" != skip ]]; then
  if command -v dpkg-query >/dev/null; then
    install_packages
  else
    echo "setup: no dpkg here. Install the equivalents of these, then run again with SWITCHYARD_PACKAGES=skip:" >&2
    echo "  ${packages[*]}" >&2
    exit 1
  fi
fi

# A python3 in front of the system's may lack venv or ensurepip; the system's has both from python3-venv.
choose_python() {
  local candidate
  for candidate in python3 /usr/bin/python3; do
    if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "setup: no python3 of version 3.11 or later with the venv module (package python3-venv)" >&2
  exit 1
}

# The stamp holds the requirements that were installed, so an edit or a deleted .venv brings the installation back.
stamp=.venv/requirements.installed
installed() {
  .venv/bin/python3 -c '' 2>/dev/null || return 1
  cmp -s requirements.txt "$stamp" || { [[ "${requirements[0]}" != -r ]] && grep -qxF "${requirements[0]}" "$stamp" 2>/dev/null; }
}
if ! installed; then
  if ! .venv/bin/python3 -m pip --version >/dev/null 2>&1; then
    python=$(choose_python)
    echo "setup: making .venv with $("$python" --version)"
    rm -rf .venv
    "$python" -m venv .venv
  fi
  rm -f "$stamp"
  echo "setup: installing ${requirements[*]} into .venv"
  .venv/bin/python3 -m pip install -qq --disable-pip-version-check "${requirements[@]}"
  if [[ "${requirements[0]}" == -r ]]; then cp requirements.txt "$stamp"; else printf '%s\n' "${requirements[@]}" >"$stamp"; fi
fi
