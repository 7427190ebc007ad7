# The closures, made once: source of bench/run, which has set load, data, amount and project's root as working directory.
# Two stores, so that all of one can be dumped by one process; of each, a bank with zstd and one without.

nix=$PWD/target/tools/trixie/bin
tests/tools/nix.sh target/tools trixie >/dev/null

on_store() { # CLOSURE PROGRAM ARGUMENT...
  local closure=$1 program=$2
  shift 2
  env -i PATH="$PATH" HOME="$data/$closure/home" \
    NIX_STORE_DIR="$data/$closure/store" NIX_STATE_DIR="$data/$closure/var" NIX_LOG_DIR="$data/$closure/log" \
    "$nix/$program" "$@"
}

make_closure() { # CLOSURE
  local closure=$1 paths path hash form
  mkdir -p "$data/$closure/home"
  paths=$(on_store "$closure" nix-store --add "$data/sources/$closure"/*)
  for form in zstd none; do
    # shellcheck disable=SC2086 # one word a path
    on_store "$closure" nix copy --to "file://$data/$closure/bank-$form?compression=$form" $paths 2>/dev/null
  done
  : >"$data/$closure.hashes"
  for path in $paths; do
    hash=$(basename "$path")
    # The 1 GiB path is for ranges only.
    case $hash in *-range) echo "${hash%%-*}" >"$data/range.hashes" ;; *) echo "${hash%%-*}" >>"$data/$closure.hashes" ;; esac
  done
  for form in zstd none; do
    while read -r hash; do
      sed -n 's/^URL: //p' "$data/$closure/bank-$form/$hash.narinfo"
    done <"$data/$closure.hashes" >"$data/$closure.$form.urls"
  done
}

# What it depends on: the generator and this file, and where it stands (the store directory is in the hashes).
stamp="$(cat bench/load/data.rs bench/data.sh | sha256sum) $amount $data"
if [ "$(cat "$data/stamp" 2>/dev/null)" != "$stamp" ]; then
  echo "making the data" >&2
  [ ! -d "$data" ] || { chmod -R u+w "$data"; rm -rf "$data"; }
  mkdir -p "$data/sources"
  # shellcheck disable=SC2086 # no word where it is all
  "$load" data "$data/sources" $amount
  make_closure small
  make_closure large
  rm -rf "$data/sources"
  echo "$stamp" >"$data/stamp"
fi
