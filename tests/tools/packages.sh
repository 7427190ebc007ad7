#!/usr/bin/env bash
# Install the Debian packages whose programs (or files, by their path) are missing. Only root can; anybody else is
# told what to ask for.
#
#   tests/tools/packages.sh PROGRAM=PACKAGE...
set -euo pipefail

have() {
  case $1 in
    /*) [ -e "$1" ] ;;
    *) PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null ;;
  esac
}

missing=()
for pair; do
  have "${pair%%=*}" || missing+=("${pair#*=}")
done
[ ${#missing[@]} -gt 0 ] || exit 0

# Another installation on this machine is waited for.
command=(apt-get -o DPkg::Lock::Timeout=600 install --yes --no-install-recommends "${missing[@]}")
if [ "$(id -u)" != 0 ]; then
  echo "missing, and only root can: apt-get install ${missing[*]}" >&2
  exit 1
fi
# Nobody asked for a web server on port 80.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' >$policy
  chmod +x $policy
fi
export DEBIAN_FRONTEND=noninteractive
"${command[@]}" >&2 || { apt-get update >&2 && "${command[@]}" >&2; }
