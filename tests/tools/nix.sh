#!/usr/bin/env bash
# Unpack a real Nix for the tests, without root and without /nix.
#
#   tests/tools/nix.sh [DIR [SUITE...]]
#
# DIR defaults to target/tools under the project, SUITE to `trixie bookworm` (Nix 2.26 and 2.8).
# Afterwards DIR/SUITE/bin holds nix, nix-store, nix-build, nix-instantiate and the like; the last lines
# printed are the versions. A second run does nothing, two runs at once wait for one another, and an
# interrupted run is begun again. Nothing outside DIR is written.
#
# The packages come from the mirror that this machine's own apt is configured with
# (SNOWBANK_TEST_MIRROR names another one).
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
tools=${1:-$project/target/tools}
shift || true
[ $# -gt 0 ] || set -- trixie bookworm
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

fail() { echo "nix.sh: $*" >&2; exit 1; }

# Download nix-bin, patchelf and all they depend on, as if nothing at all were installed yet, into $1/apt.
download() {
  local into=$1 suite=$2 mirror=$3
  mkdir -p "$into"/apt/{sources,lists/partial,cache/archives/partial}
  : >"$into/apt/status"
  cat >"$into/apt/sources/nix.sources" <<END
Types: deb
URIs: $mirror
Suites: $suite
Components: main
Signed-By: $keyring
END
  local options=(
    -qq
    -o "Dir::Etc::SourceList=/dev/null" -o "Dir::Etc::SourceParts=$into/apt/sources"
    -o "Dir::State::Lists=$into/apt/lists" -o "Dir::State::status=$into/apt/status"
    -o "Dir::Cache=$into/apt/cache" -o "Dir::Log=$into/apt"
    -o "APT::Install-Recommends=false" -o "Acquire::Languages=none" -o "Acquire::Retries=3"
    # An ordinary user cannot become _apt, and cannot take dpkg's own lock: ours is enough.
    -o "APT::Sandbox::User=" -o "Debug::NoLocking=true"
  )
  apt-get "${options[@]}" update >&2
  apt-get "${options[@]}" --yes --download-only install nix-bin patchelf >&2
}

# Make the unpacked programs find their own loader and libraries instead of the machine's. An RPATH, not a
# RUNPATH, because only that is also used for the libraries of libraries; and the interpreter is set in the
# file, because Nix starts itself again as its own build hook.
relocate() {
  local root=$1 loader libraries
  loader=$(find "$root" -name 'ld-linux-*.so.*' -print -quit)
  [ -n "$loader" ] || fail "no loader among the packages"
  libraries=$(find "$root" -name '*.so*' -path '*-linux-gnu/*' -not -path '*-linux-gnu/*/*' -printf '%h\n' | sort -u | paste -sd:)
  [ ! -d "$root/usr/lib/nix" ] || libraries=$libraries:$root/usr/lib/nix
  patch() { "$loader" --library-path "$libraries" "$root/usr/bin/patchelf" --force-rpath --set-rpath "$libraries" "$@"; }
  patch --set-interpreter "$loader" "$root/usr/bin/nix"
  # Older Debian keeps Nix's own libraries in a directory of its own, each with a RUNPATH.
  local library
  for library in "$root"/usr/lib/nix/*.so; do
    [ ! -e "$library" ] || patch "$library"
  done
}

# One wrapper per name: Nix decides by its name what it is.
write_wrappers() {
  local into=$1 name
  mkdir -p "$into/bin" "$into/etc"
  {
    echo 'experimental-features = nix-command flakes'
    echo 'build-users-group ='
    echo 'sandbox = false'
    echo 'substituters ='
    [ ! -x "$into/root/usr/libexec/nix/build-remote" ] || echo "build-hook = $into/root/usr/libexec/nix/build-remote"
  } >"$into/etc/nix.conf"
  for name in nix nix-build nix-collect-garbage nix-hash nix-instantiate nix-store; do
    cat >"$into/bin/$name" <<END
#!/usr/bin/env bash
export NIX_CONF_DIR=\${NIX_CONF_DIR-$into/etc}
exec -a $name "$into/root/usr/bin/nix" "\$@"
END
    chmod +x "$into/bin/$name"
  done
}

unpack() {
  local into=$1 suite=$2 mirror archive
  mirror=$("$project/tests/tools/mirror.sh")
  [ -r "$keyring" ] || fail "$keyring is missing: install debian-archive-keyring"
  rm -rf "$into"
  mkdir -p "$into/root"
  download "$into" "$suite" "$mirror"
  for archive in "$into"/apt/cache/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$archive" |
      tar -x -C "$into/root" --no-same-owner --no-same-permissions \
        --exclude='./usr/share/doc' --exclude='./usr/share/man' --exclude='./usr/share/locale' --exclude='./usr/share/perl*'
  done
  relocate "$into/root"
  write_wrappers "$into"
  rm -rf "$into/apt"
}

# What the unpacked tree depends on: this very script, and where it stands (the paths are in the programs).
stamp_of() { echo "$(sha256sum <"${BASH_SOURCE[0]}") $1"; }

mkdir -p "$tools"
tools=$(cd "$tools" && pwd)
for suite; do
  (
    flock 9
    into=$tools/$suite
    if [ "$(cat "$into/stamp" 2>/dev/null)" != "$(stamp_of "$into")" ]; then
      unpack "$into" "$suite"
      "$into/bin/nix" --version >/dev/null || fail "the Nix of $suite does not run"
      stamp_of "$into" >"$into/stamp"
    fi
    "$into/bin/nix" --version
  ) 9>"$tools/$suite.lock"
done
