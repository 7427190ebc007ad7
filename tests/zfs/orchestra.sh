# shellcheck shell=bash
# What tests of several starts of the machine share: disks that outlive it, power cuts, and counting.
#
# A script that sources this calls `prepare`, then `check NAME COMMAND...` for each of its tests, then `finish`.
# Its COMMANDs use
#   in_guest OPTION... -- COMMAND...            run a command in a machine, to its end
#   cut_after LINES OPTION... -- COMMAND...     cut the power when it has printed so many lines `ACK WHAT`
#   new_disk NAME SIZE                          make a disk, print its file
# The share of all machines, /share in the guest, is $work/share; what was acknowledged by whatever was cut off is
# collected there, in `acknowledged`, a WHAT a line. The payload is that of tests/zfs/payload.

# shellcheck source=tests/zfs/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

passed=0 failed=0 payload_options=()

prepare() {
  local payloads
  payloads=$("$zfs_tests/payload")
  mapfile -t payload_options <<<"$payloads"
  work=$(mktemp -d "$project/target/zfs/${0##*/}.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  trap 'exit 130' INT TERM HUP
  mkdir "$work/share"
  : >"$work/share/acknowledged"
}

new_disk() { # NAME SIZE
  truncate --size "$2" "$work/$1"
  echo "$work/$1"
}

machine() { "$zfs_tests/vm" "${payload_options[@]}" --share "$work/share" --pid-file "$work/pid" "$@"; }

# What a guest prints is set off, so that nobody takes its results for those of this script.
in_guest() { machine "$@" | sed -u 's/^/    /'; }

# Returns 0 if the power was cut, 1 if the machine ended by itself. The cut comes up to a fifth of a second after the
# last of the lines, so that it does not always meet the same step of what comes next.
cut_after() { # LINES OPTION... -- COMMAND...
  local lines=$1 pause seen=0 cut=1 line
  shift
  pause=0.$(printf '%03d' $((RANDOM % 200)))
  while IFS= read -r line; do
    [[ $line =~ (^|[[:space:]])ACK\ (.+)$ ]] || { echo "    $line"; continue; }
    echo "${BASH_REMATCH[2]}" >>"$work/share/acknowledged"
    seen=$((seen + 1))
    [ $seen = "$lines" ] || continue
    sleep "$pause"
    if kill -KILL "$(cat "$work/pid")"; then cut=0; fi
  done < <(machine "$@" 2>"$work/machine.log")
  if [ $cut = 0 ]; then
    echo "    cut $pause s after $lines lines; $seen acknowledged"
  else
    sed 's/^/    /' "$work/machine.log"
    echo "    the machine ended after $seen of $lines acknowledged"
  fi
  return $cut
}

check() { # NAME COMMAND...
  local name=$1
  shift
  echo "$name"
  # A subshell of its own, in which the first error is the last: `if` would switch that off.
  local status=0
  set +e
  (set -e; "$@")
  status=$?
  set -e
  if [ $status = 0 ]; then
    passed=$((passed + 1))
    echo "$name ... ok"
  else
    failed=$((failed + 1))
    echo "$name ... FAILED"
  fi
}

# The last line is that of a Rust test, which tests/run counts.
finish() {
  local verdict=ok
  [ "$failed" = 0 ] && [ "$passed" -gt 0 ] || verdict=FAILED
  echo "test result: $verdict. $passed passed; $failed failed; 0 ignored; 0 measured; 0 filtered out"
  [ $verdict = ok ]
}
