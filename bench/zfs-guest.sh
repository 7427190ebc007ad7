#!/usr/bin/env bash
# The part of bench/zfs that runs in the machine: two empty disks, one for a pool and one for ext4.
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin:$NIX_BIN_DIR NIX_CONFIG='experimental-features = nix-command' HOME=/tmp/home
snowbank=/payload/bin/snowbank
# Not /tmp, which is memory.
work=/ext4/work
mkdir -p "$HOME"

seconds() { # COMMAND...: how long it took
  local began=$EPOCHREALTIME
  "$@" >"$work/said" 2>&1 || { cat "$work/said" >&2; return 1; }
  awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.3f\n", b - a }'
}
median() { sort -n | awk '{ value[NR] = $1 } END { print value[int((NR + 1) / 2)] }'; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a / b }'; }
used() { zpool sync tank; zfs get -Hp -o value used "$1"; }

zpool create -o ashift=12 -o cachefile=none -O mountpoint=none -O atime=off -O xattr=sa -O compression=zstd \
  -O dnodesize=auto tank /dev/disk/by-id/virtio-d1
mke2fs -q -t ext4 /dev/disk/by-id/virtio-d2
mkdir -p /ext4 && mount /dev/disk/by-id/virtio-d2 /ext4
mkdir "$work"

# ---- What a closure takes on disk ----

# Files as there are many of: programs, libraries, scripts and data of this machine, so many mebibytes of each kind.
zfs create -o mountpoint=/nix -o recordsize=128K tank/unpacked
export NIX_STATE_DIR=$work/var NIX_LOG_DIR=$work/log
paths=()
for kind in /usr/lib/x86_64-linux-gnu /usr/bin /usr/share /usr/lib/modules; do
  mkdir -p "$work/source"
  find "$kind" -type f -size +0 -printf '%s %p\n' | sort -k2 |
    awk -v most=$((FILES_MIB * 262144)) '(sum += $1) <= most { print $2 }' >"$work/names"
  tar -cf - -T "$work/names" 2>/dev/null | tar -xf - -C "$work/source"
  mv "$work/source" "$work/files-$(basename "$kind")"
  paths+=("$(nix-store --add "$work/files-$(basename "$kind")")")
done
echo "closure: ${#paths[@]} paths, $(find "${paths[@]}" -type f | wc -l) files, $(nix path-info -s "${paths[@]}" | awk '{ sum += $2 } END { print sum }') bytes of NAR"

bank_dataset() { # NAME
  zfs create -o "mountpoint=/banks/$1" -o recordsize=1M "tank/$1"
}
bank_dataset xz
nix copy --to 'file:///banks/xz?compression=xz' "${paths[@]}"
bank_dataset zstd
nix copy --to 'file:///banks/zstd?compression=zstd' "${paths[@]}"

zfs create -o canmount=off -o mountpoint=none tank/snowbank
zfs create -o mountpoint=/data/default -o recordsize=1M tank/snowbank/default
cat >"$work/config.toml" <<END
[zfs]
dataset = "tank/snowbank"
[cache.default]
push = "open"
END
serve() { # DATA-DIRECTORY PORT CONFIGURATION...
  local data=$1 port=$2
  shift 2
  "$snowbank" serve --data-dir "$data" --store none --listen "127.0.0.1:$port" "$@" >"$work/server-$port.log" 2>&1 &
  servers+=($!)
  for _ in {1..300}; do
    ! grep -q '^listening on' "$work/server-$port.log" || return 0
    sleep 0.2
  done
  cat "$work/server-$port.log" >&2
  return 1
}
servers=()
trap 'kill "${servers[@]}" 2>/dev/null || true' EXIT
serve /data 5000 --config "$work/config.toml"
"$snowbank" push "${paths[@]}" --to http://127.0.0.1:5000 >"$work/said" 2>&1 || { cat "$work/said" >&2; exit 1; }

ours=$(used tank/snowbank/default)
printf '%-58s %12s %8s\n' 'bytes on disk (a pool with compression=zstd)' bytes 'to ours'
for what in "snowbank/default:bank of Snowbank (zstd, seekable)" "unpacked:unpacked, recordsize=128K" \
  "xz:nix copy --to file://, xz" "zstd:nix copy --to file://, zstd"; do
  bytes=$(used "tank/${what%%:*}")
  printf '%-58s %12s %8s\n' "${what#*:}" "$bytes" "$(ratio "$bytes" "$ours")"
done

# ---- NARs from a dataset that is warm in the ARC, and the same files from ext4 ----

mkdir -p /ext4/data
cp -a /data/default /ext4/data/
serve /ext4/data 5001
nars=(/data/default/nar/*)
fetch() { # PORT
  local nar words=()
  # Several times each, so that the start of curl counts for little.
  for nar in "${nars[@]}"{,,,,}; do words+=("http://127.0.0.1:$1/nar/$(basename "$nar")" -o /dev/null); done
  curl --silent --show-error --fail "${words[@]}"
}
fetch 5000 && fetch 5001
for ((round = 0; round < ROUNDS; round++)); do
  seconds fetch 5000 >>"$work/fetch-5000"
  seconds fetch 5001 >>"$work/fetch-5001"
done
zfs_time=$(median <"$work/fetch-5000") ext4_time=$(median <"$work/fetch-5001")
printf '\nNARs served, warm: %s s from ZFS, %s s from ext4; throughput of ZFS to ext4 %s\n' "$zfs_time" "$ext4_time" \
  "$(ratio "$ext4_time" "$zfs_time")"

# ---- Replication of new paths ----

fresh() { # NUMBER: so many mebibytes of NARs that do not compress
  local index
  mkdir -p "$work/fresh"
  for ((index = 0; index < NEW_MIB / 16; index++)); do
    head -c 16M /dev/urandom >"$work/fresh/$1-$index"
  done
  nix-store --add "$work/fresh"/* >"$work/fresh-paths"
  nix copy --to 'file:///data/default?compression=none' $(cat "$work/fresh-paths")
  rm -rf "$work/fresh"
}
replicate() { "$snowbank" zfs replicate default --to tank/copy --config "$work/config.toml" --data-dir /data; }
send_alone() { zfs send -cLe -i "$1" "$2" | zfs receive -u tank/alone; }

replicate >/dev/null 2>&1
zfs snapshot tank/snowbank/default@first
zfs send -cLe tank/snowbank/default@first | zfs receive -u tank/alone
fresh 1
zfs snapshot tank/snowbank/default@second
replicated=$(seconds replicate)
tail -n 3 "$work/said"
alone=$(seconds send_alone tank/snowbank/default@first tank/snowbank/default@second)
sent=$(zfs send -cLe -i tank/snowbank/default@first tank/snowbank/default@second | wc -c)
printf '\nreplication of %s MiB of new paths: %s s, zfs send | zfs receive alone %s s (%s bytes); ratio %s\n' \
  "$NEW_MIB" "$replicated" "$alone" "$sent" "$(ratio "$replicated" "$alone")"
