# shellcheck shell=bash
# What tests/zfs/unit has a machine do: bash unit-guest.sh STEP...
#
# Each STEP is one of the functions below. It appends `STEP ok` to /share/results when it has succeeded; the first that
# has not is the last.
set -euo pipefail
snowbank=/payload/bin/snowbank

failed() {
  echo "$*"
  journalctl --no-pager --lines 30 --unit snowbank.service --unit snowbank-zfs-init.service || true
  exit 1
}

# The answer, with its head.
get() ( # PATH
  exec 3<>/dev/tcp/127.0.0.1/5000
  printf 'GET %s HTTP/1.0\r\n\r\n' "$1" >&3
  cat <&3
)

# Whether the answer comes to have such a line, within a minute.
comes_to_say() { # PATH PATTERN
  local try
  for try in {1..60}; do
    # Of the last try all is shown.
    get "$1" >/tmp/answer 2>&1 || true
    ! grep -q "$2" /tmp/answer || return 0
    sleep 1
  done
  cat /tmp/answer
  failed "after $try s $1 does not say $2"
}

# Whether it is the process that was started first: a call that it may not make ends it, a moment after it was ready.
stays() {
  for _ in {1..5}; do
    comes_to_say /health '"ok"'
    sleep 1
  done
  [ "$(systemctl show --property NRestarts --value snowbank.service)" = 0 ] || failed 'it was started again'
}

datasets_are_made() {
  zpool create -O mountpoint=none tank /dev/disk/by-id/virtio-d1
  cat >/etc/snowbank.toml <<'END'
data_dir = "/var/lib/snowbank"
listen = ["127.0.0.1:5000"]
store = "none"

[zfs]
dataset = "tank/snowbank"
interval = "1s"

[cache.default]
signing_keys = ["/run/credentials/snowbank.service/signing-key-0"]
snapshot_every = "1h"
END
  cp /share/server.service /run/systemd/system/snowbank.service
  cp /share/init.service /run/systemd/system/snowbank-zfs-init.service
  systemctl daemon-reload
  systemctl start snowbank-zfs-init.service || failed 'the datasets are not made'
  [ "$(zfs get -H -o value mounted tank/snowbank/default)" = yes ] || failed 'the dataset of the cache is not mounted'
}

server_is_ready() {
  umask 077
  "$snowbank" key generate cache.test-1 --out /root/signing-key >/root/public-key
  systemctl start snowbank.service || failed 'the server is not ready'
  comes_to_say /nix-cache-info '^StoreDir: /nix/store'
  comes_to_say /health '"ok"'
}

pool_is_seen() {
  comes_to_say /metrics '^snowbank_zfs_pool_health{.*ONLINE.*} 1'
  comes_to_say /metrics '^snowbank_zfs_arc_size_bytes [1-9]'
  stays
}

snapshot_is_made() {
  local try
  for try in {1..60}; do
    [ -z "$(zfs list -H -t snapshot -o name tank/snowbank/default)" ] || return 0
    sleep 1
  done
  failed "after $try s there is no snapshot"
}

nothing_else_is_written() {
  local pid
  pid=$(systemctl show --property MainPID --value snowbank.service)
  grep -qx 'CapEff:.0000000000000000' "/proc/$pid/status" || failed 'it has capabilities'
  [ "$(stat --format %U "/proc/$pid")" = snowbank ] || failed 'it is not the user that it should be'
  local directory
  for directory in /etc /var/lib /usr /root; do
    ! nsenter --target "$pid" --mount -- setpriv --reuid snowbank --clear-groups touch "$directory/written" 2>/dev/null ||
      failed "it can write to $directory"
  done
  nsenter --target "$pid" --mount -- setpriv --reuid snowbank --clear-groups touch /var/lib/snowbank/default/written ||
    failed 'it cannot write to its own dataset'
  rm /var/lib/snowbank/default/written
}

key_signs() {
  [ "$(stat --format '%a %U' /root/signing-key)" = '600 root' ]
  comes_to_say / "$(cat /root/public-key)"
}

unit_for_others_serves() {
  systemctl stop snowbank.service
  ln -s "$snowbank" /usr/local/bin/snowbank
  cp /share/snowbank.service /run/systemd/system/
  printf 'listen = ["127.0.0.1:5000"]\nstore = "none"\n' >/etc/snowbank.toml
  zfs set canmount=noauto tank/snowbank/default
  zfs unmount -a
  systemctl daemon-reload
  systemctl start snowbank.service || failed 'the server is not ready'
  stays
}

for step; do
  echo "== $step"
  (set -e; "$step")
  echo "$step ok" >>/share/results
done
systemctl stop snowbank.service
