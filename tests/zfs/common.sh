# shellcheck shell=bash
# shellcheck disable=SC2034 # what is set here is used by those who source it
# What the scripts here share.

zfs_tests=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
project=$(cd "$zfs_tests/../.." && pwd)
# Outside the checkout: an image takes a quarter of an hour to build, and a fresh clone does not change it.
cache=${SNOWBANK_VM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/snowbank/vm}
# Where mke2fs lies.
PATH=$PATH:/usr/sbin:/sbin

note() { echo "${0##*/}: $*" >&2; }

fail() { # MESSAGE [STATUS]
  note "$1"
  exit "${2:-1}"
}
