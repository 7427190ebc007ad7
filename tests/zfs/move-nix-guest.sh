# shellcheck shell=bash
# What tests/zfs/move-nix has a machine do: bash move-nix-guest.sh NIX STEP...
#
# Each STEP is one of the functions below. It appends `STEP ok` to /share/results when it has succeeded; the first that
# has not is the last. NIX is the directory of the Nix that tests/tools/nix.sh unpacks.
set -euo pipefail
nix=$1
shift
store=$nix/bin/nix-store
snowbank=/payload/bin/snowbank
new=/run/snowbank/new-nix old=/run/snowbank/old-nix
state=/var/lib/move-nix # of this test, on the root file system
mkdir -p $state

failed() { echo "$*"; exit 1; }

as_user() { setpriv --reuid 1000 --regid 1000 --clear-groups env HOME=/home/snowbank NIX_REMOTE=daemon "$@"; }

# ---- What steps look at ----

file_system() { findmnt --noheadings --output FSTYPE,SOURCE --mountpoint /nix | tail -n 1; }

nix_is_dataset() { [[ $(file_system) =~ ^zfs\ +cache/nix$ ]] || failed "/nix is $(file_system)"; }

nix_is_old_tree() { [ -z "$(file_system)" ] || failed "/nix is $(file_system)"; }

# Both say on what file system a file is, whatever is mounted over it later.
device() { stat --format %d "$1"; }

# Real Nix reads the database and hashes every path. It ends with 1 where one is wrong or missing.
store_is_whole() {
  "$store" --verify --check-contents >/tmp/verify 2>&1 || { cat /tmp/verify; failed 'nix-store found something'; }
  ! grep -v -e '^reading the Nix store' -e '^checking path existence' -e '^checking link hashes' \
    -e '^checking store hashes' /tmp/verify || failed 'nix-store found something'
  "$store" --query --references "$(<$state/depending)" | grep -qxF -f $state/first || failed 'a reference is missing'
  xargs "$store" --check-validity <$state/paths
  "$(<$state/program)/bin/greet" | grep -qx 'a program of the store' || failed 'a program does not run'
  # Nothing lies in the store that the database does not know.
  diff <(find /nix/store -mindepth 1 -maxdepth 1 ! -name '.*' ! -name '*.lock' -print | sort) \
    <("$store" --dump-db | grep -x '/nix/store/.*' | sort -u)
}

# Kind, mode, owner, names, size, time, target and bytes of all that the store had at first. The size of a directory is
# the file system's own affair.
listing() ( # NIX
  cd "$1"
  while read -r path; do
    find "store/${path##*/}" ! -type d -printf '%p %y %m %U:%G %n %T@ %s %l\n' -o -printf '%p %y %m %U:%G %T@\n' | sort
    find "store/${path##*/}" -type f -print0 | sort -z | xargs -0 -r sha256sum
  done <$state/initial
)

daemon_answers() {
  systemctl is-active --quiet nix-daemon.socket || failed 'the socket of the daemon is not active'
  echo "$1" >/tmp/asked
  as_user "$store" --add /tmp/asked >/tmp/answered
  [ -e "$(cat /tmp/answered)" ]
}

# A program of the store runs from it, with a file of it open, and says what that file has in it.
reader_lives() {
  [ "$(systemctl show --property=MainPID --value reader.service)" = "$(<$state/reader)" ] || failed 'it was started anew'
  [ "$(stat --dereference --format %d "/proc/$(<$state/reader)/exe")" = "$(<$state/device)" ]
  grep -q "/nix/store/.*/bin/bash" "/proc/$(<$state/reader)/maps"
  echo 3 >/proc/sys/vm/drop_caches
  [ "$(timeout 60 sh -c 'echo >/run/ask; cat /run/answer')" = "$(<$state/sum)" ] || failed 'it does not read its file'
}

# ---- The first machine ----

write_units() {
  # The units as Nix ships them.
  cat >/etc/systemd/system/nix-daemon.socket <<'UNIT'
[Unit]
Description=Nix Daemon Socket
Before=multi-user.target
RequiresMountsFor=/nix/store
ConditionPathIsReadWrite=/nix/var/nix/daemon-socket

[Socket]
ListenStream=/nix/var/nix/daemon-socket/socket

[Install]
WantedBy=sockets.target
UNIT
  cat >/etc/systemd/system/nix-daemon.service <<UNIT
[Unit]
Description=Nix Daemon
RequiresMountsFor=/nix/store
RequiresMountsFor=/nix/var
RequiresMountsFor=/nix/var/nix/db
ConditionPathIsReadWrite=/nix/var/nix/daemon-socket

[Service]
Environment=NIX_CONF_DIR=$nix/etc
ExecStart=@$nix/root/usr/bin/nix-daemon nix-daemon --daemon
KillMode=process
LimitNOFILE=1048576
TasksMax=1048576
UNIT
  cat >/etc/systemd/system/reader.service <<'UNIT'
[Service]
ExecStart=/bin/sh -c 'exec "$(cat /var/lib/move-nix/program)/bin/bash" "$(cat /var/lib/move-nix/program)/bin/reader"'
# It has a mount namespace of its own.
PrivateTmp=yes
UNIT
}

make_trees() { # NUMBER...
  local number directory
  for number; do
    directory=/tmp/new/tree-$number
    mkdir -p "$directory/inner/deeper"
    head -c 1M /dev/urandom >"$directory/own"
    echo '#!/bin/sh' >"$directory/inner/script"
    chmod +x "$directory/inner/script"
    ln -s ../own "$directory/inner/link"
    ln -s /nowhere "$directory/dangling"
    : >"$directory/empty"
    # The same in all of them: `nix-store --optimise` gives it one inode.
    seq 20000 >"$directory/inner/deeper/same"
  done
}

make_program() {
  local directory=/tmp/new/program
  mkdir -p $directory/bin
  cp /bin/bash $directory/bin/bash
  head -c 3M /dev/urandom >$directory/data
  printf '#!/bin/sh\necho a program of the store\n' >$directory/bin/greet
  cat >$directory/bin/reader <<'READER'
exec 3<"${0%/bin/reader}/data"
while read -r _ </run/ask; do sha256sum </proc/self/fd/3 >/run/answer; done
READER
  chmod +x $directory/bin/greet
}

# As NixOS has it.
make_store_read_only() {
  mount --bind /nix/store /nix/store
  mount -o remount,bind,ro /nix/store
}

make_store() {
  mkdir -p /nix/store
  make_trees {10..39}
  make_program
  "$store" --add /tmp/new/* >$state/paths
  grep -- -program $state/paths >$state/program
  grep -- -tree-10 $state/paths >$state/first
  printf %s "$(<$state/first)" >$state/one
  "$nix/bin/nix-build" --no-out-link -E 'with builtins; derivation {
    name = "depending"; system = currentSystem; builder = "/bin/sh"; args = [ "-c" "echo $dependency >$out" ];
    dependency = storePath (readFile /var/lib/move-nix/one); }' >$state/depending 2>/tmp/log || { cat /tmp/log; exit 1; }
  cat $state/depending >>$state/paths
  cp $state/paths $state/initial
  "$store" --optimise 2>&1 | tail -n 1
  [ "$(stat --format %h "$(<$state/first)/inner/deeper/same")" -gt 30 ] || failed 'there are no hard links'
  make_store_read_only
  # The units do not start without it; whoever installs Nix makes it.
  mkdir -p /nix/var/nix/daemon-socket
  write_units
  systemctl daemon-reload
  systemctl enable --quiet --now nix-daemon.socket
  mkfifo /run/ask /run/answer
  sha256sum <"$(<$state/program)/data" >$state/sum
  device /nix >$state/device
  systemctl start reader.service
  systemctl show --property=MainPID --value reader.service >$state/reader
  reader_lives
  daemon_answers 'before everything'
  cat /tmp/answered >>$state/paths
  store_is_whole
}

make_pool() {
  "$snowbank" format --print-example dedicated |
    awk '/^\[/ { skip = /yocto/ } !skip { sub(/^serial = .*/, "serial = \"d1\""); print }' >$state/layout.toml
  "$snowbank" format --layout $state/layout.toml
  zpool status cache | grep -q ONLINE
}

move_nix() { "$snowbank" format move-nix --layout $state/layout.toml; }

store_paths() { # NIX: what is in its store, where there is one
  [ ! -e "$1/store" ] || find "$1/store" -mindepth 1 -maxdepth 1 ! -name '.*' -printf '%f\n' | LC_ALL=C sort
}

# Sets `mover`, which is stopped in the midst of copying: of the store paths that were not in the copy before, some are
# there now, others are not.
move_to_the_midst() { # LOG
  local names
  mapfile -t names < <(LC_ALL=C comm -23 <(store_paths /nix) <(store_paths $new))
  "$snowbank" format move-nix --layout $state/layout.toml >"$1" 2>&1 &
  mover=$!
  until [ -e "$new/store/${names[5]}" ]; do [ -e /proc/$mover/exe ] || { cat "$1"; failed 'it has ended'; }; done
  kill -STOP $mover
  [ ! -e "$new/store/${names[-1]}" ] || failed 'it has copied everything already'
  grep -q 'while it is in use' "$1"
  ! grep -q 'hashing the store paths' "$1" || failed 'it has copied everything already'
  echo "stopped with $(store_paths $new | wc -l) of $(store_paths /nix | wc -l) paths in the copy"
}

killed_in_the_midst() {
  listing /nix >$state/listing
  move_to_the_midst /tmp/killed
  kill -KILL $mover
  wait $mover || [ $? = 137 ] || failed 'it was not killed'
  nix_is_old_tree
  [ "$(device /nix)" = "$(<$state/device)" ]
  [ "$(zfs get -Hp -o value snowbank:nix cache/nix)" = copying ]
  systemctl start nix-daemon.socket
  daemon_answers 'after it was killed'
  cat /tmp/answered >>$state/paths
  listing /nix | diff $state/listing -
  reader_lives
  store_is_whole
}

# Programs that kill whoever starts them, when that is to run `$2`.
killed_before() { # PROGRAM ARGUMENTS
  local real status=0
  real=$(command -v "$1")
  mkdir -p /tmp/killers
  # shellcheck disable=SC2016 # the script expands it
  printf '#!/bin/sh\ncase "$*" in %s) kill -KILL $PPID; exit 1 ;; esac\nexec %s "$@"\n' "$2" "$real" >"/tmp/killers/$1"
  chmod +x "/tmp/killers/$1"
  PATH=/tmp/killers:$PATH move_nix || status=$?
  rm -r /tmp/killers
  [ $status = 137 ] || failed "it was not killed: $status"
}

nix_state() { zfs get -Hp -o value snowbank:nix cache/nix; }

daemon_is_stopped() { ! systemctl is-active --quiet nix-daemon.socket || failed 'the daemon was not stopped'; }

killed_with_the_daemon_stopped() {
  killed_before zfs "'set snowbank:nix=switching '*"
  nix_is_old_tree
  daemon_is_stopped
  systemctl start nix-daemon.socket
  daemon_answers 'after it was killed again'
  cat /tmp/answered >>$state/paths
  reader_lives
}

refused_after_a_kill() {
  killed_before mount "'--rbind $new /nix'"
  nix_is_old_tree
  [[ $(nix_state) = 'switching '* ]] || failed "the dataset is said to be $(nix_state)"
  daemon_is_stopped
  mkdir -p /nix/var/other
  mount -t tmpfs tmpfs /nix/var/other
  if move_nix >/tmp/refused 2>&1; then failed 'what is mounted below /nix would be gone'; fi
  grep -q 'tmpfs (tmpfs) is mounted at /nix/var/other' /tmp/refused || { cat /tmp/refused; failed 'it does not say why'; }
  daemon_answers 'after it was refused'
  cat /tmp/answered >>$state/paths
  umount /nix/var/other
  rmdir /nix/var/other
  reader_lives
}

# ---- Clients, while it is moved ----

# Adds one path after the other until /tmp/enough is there, and writes down which. One that the daemon refuses, because
# it is stopped, tries again.
adding() { # NAME COMMAND...
  local name=$1 number=0
  shift
  until [ -e /tmp/enough ]; do
    number=$((number + 1))
    until "$@" "$name $number" >"/tmp/$name.path" 2>"/tmp/$name.log"; do
      if grep -q -e 'cannot connect to socket' -e 'cannot open connection to remote store' "/tmp/$name.log"; then
        cat "/tmp/$name.log" >>"/tmp/$name.refused"
      else
        cat "/tmp/$name.log" >>/tmp/failures
        return
      fi
    done
    grep 'waiting for' "/tmp/$name.log" >>"/tmp/$name.waited" || true
    # shellcheck disable=SC2094 # it is written once a line
    cat "/tmp/$name.path" >>"/tmp/$name.acknowledged"
  done
}

build_by_the_daemon() {
  as_user "$nix/bin/nix-build" --no-out-link -E "derivation { name = \"built\"; system = builtins.currentSystem;
    builder = \"/bin/sh\"; args = [ \"-c\" \"echo $1 >\$out\" ]; }"
}

add_as_root() {
  echo "$1" >/tmp/added-by-root
  "$store" --add /tmp/added-by-root
}

acknowledged() { wc -l <"/tmp/$1.acknowledged"; }

# Returns when each client has had another answer, and fails when one has had none for two minutes.
each_adds_more() {
  local client before waited
  for client in daemon direct; do
    before=$(acknowledged $client) waited=$SECONDS
    # Of the next answer the beginning may have been earlier.
    until [ "$(acknowledged $client)" -ge $((before + 2)) ]; do
      [ ! -e /tmp/failures ] || { cat /tmp/failures; failed 'a client has failed'; }
      [ $((SECONDS - waited)) -lt 120 ] || failed "the client $client has had no answer"
      sleep 0.2
    done
  done
}

moved_while_in_use() {
  local during
  touch /tmp/{daemon,direct}.{acknowledged,waited,refused}
  adding daemon build_by_the_daemon &
  local daemon=$!
  adding direct add_as_root &
  local direct=$!
  each_adds_more
  # The killed ones have copied everything that there was.
  rm -rf /tmp/new
  make_trees {40..54}
  "$store" --add /tmp/new/* >>$state/paths
  move_to_the_midst /tmp/moved
  each_adds_more
  cat /tmp/*.acknowledged >/tmp/during
  kill -CONT $mover
  wait $mover || { cat /tmp/moved; failed 'it was not moved'; }
  cat /tmp/moved
  nix_is_dataset
  each_adds_more
  during=$(wc -l </tmp/during)
  : >/tmp/enough
  wait $daemon $direct
  [ ! -e /tmp/failures ] || { cat /tmp/failures; failed 'a client has failed'; }
  echo "by the daemon $(acknowledged daemon), directly $(acknowledged direct), $during before it went on;" \
    "$(wc -l </tmp/direct.waited) waited for the lock; what the daemon refused, to be tried again:"
  { grep -o 'error: cannot .*' /tmp/daemon.refused || true; } | sort | uniq --count
  cat /tmp/*.acknowledged >>$state/paths
}

reader_lives_on() {
  reader_lives
  grep -q ' /nix .* zfs cache/nix ' "/proc/$(<$state/reader)/mountinfo" || failed 'it does not see the dataset'
}

moved_store_is_whole() {
  nix_is_dataset
  [ "$(device /nix/store)" != "$(<$state/device)" ]
  [ "$(device $old)" = "$(<$state/device)" ]
  listing /nix | diff $state/listing -
  listing $old | diff $state/listing -
  ! touch /nix/store/written 2>/dev/null || failed 'the store was read-only, and is not now'
  store_is_whole
}

daemon_answers_after() {
  daemon_answers 'after the move'
  cat /tmp/answered >>$state/paths
  [ "$(device "$(cat /tmp/answered)")" = "$(device /nix)" ]
  [ ! -e "$old/store/$(basename "$(cat /tmp/answered)")" ] || failed 'it went to the old tree'
  "$store" --check-validity "$(cat /tmp/answered)"
}

moved_again() {
  local before after
  before=$(findmnt --list --noheadings; zpool history cache)
  move_nix >/tmp/again
  grep -qx '/nix is on cache/nix already.' /tmp/again || { cat /tmp/again; failed 'it does not say so'; }
  after=$(findmnt --list --noheadings; zpool history cache)
  diff <(echo "$before") <(echo "$after")
  daemon_answers 'after the second run'
  cat /tmp/answered >>$state/paths
}

# ---- The second machine ----

old_tree_after_boot() {
  nix_is_old_tree
  systemctl is-active --quiet nix-daemon.socket
  listing /nix | diff $state/listing -
  cp $state/paths /tmp/all-paths
  # What came after the move is not there.
  cp $state/initial $state/paths
  store_is_whole
  mv /tmp/all-paths $state/paths
  [ ! -e "$(tail -n 1 $state/paths)" ] || failed 'the old tree has what was added after the move'
}

killed_after_the_switch() {
  "$snowbank" format --layout $state/layout.toml
  # Begun anew, as the refusal says that it can be.
  zfs rename cache/nix cache/nix-before
  make_store_read_only
  killed_before mount "'-o remount,bind,ro /nix/store'"
  nix_is_dataset
  [[ $(nix_state) = 'switching '* ]] || failed "the dataset is said to be $(nix_state)"
  daemon_is_stopped
  move_nix | grep -qx '/nix is on cache/nix already.'
  ! touch /nix/store/written 2>/dev/null || failed 'the store was read-only, and is not now'
  [ "$(nix_state)" = in-use ] || failed "the dataset is said to be $(nix_state)"
  daemon_answers 'after it was killed behind the switch'
  listing /nix | diff $state/listing -
  # As the lines say that it prints.
  systemctl stop nix-daemon.socket nix-daemon.service
  umount -l /nix
  systemctl start nix-daemon.socket
  nix_is_old_tree
  ! [ -e "$(cat /tmp/answered)" ] || failed 'the old tree has what was added to the dataset'
  until zfs destroy cache/nix; do sleep 0.5; done
  zfs rename cache/nix-before cache/nix
  umount $old /nix/store
}

dataset_after_boot() {
  systemctl stop nix-daemon.socket nix-daemon.service
  nix_is_old_tree
  # Moved from below this one it would be what the old tree has.
  if move_nix >/tmp/refused 2>&1; then failed 'the old tree was copied over the dataset'; fi
  grep -q 'was in use as /nix already' /tmp/refused || { cat /tmp/refused; failed 'it does not say why'; }
  # As the lines say that it prints.
  echo 'cache/nix /nix zfs defaults 0 0' >>/etc/fstab
  systemctl daemon-reload
  systemctl start nix.mount
  systemctl start nix-daemon.socket
  nix_is_dataset
  listing /nix | diff $state/listing -
  store_is_whole
  daemon_answers 'after the next boot'
  move_nix | grep -qx '/nix is on cache/nix already.'
}

for step; do
  echo "== $step, at $(cut -d' ' -f1 /proc/uptime) s"
  set +e
  (set -e; "$step")
  status=$?
  set -e
  [ $status = 0 ] || { echo "== $step failed with $status"; exit 1; }
  echo "$step ok" >>/share/results
done
