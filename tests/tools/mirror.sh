#!/usr/bin/env bash
# Print the Debian mirror that this machine's own apt is configured with; SNOWBANK_TEST_MIRROR names another one.
set -euo pipefail

if [ -n "${SNOWBANK_TEST_MIRROR:-}" ]; then
  echo "$SNOWBANK_TEST_MIRROR"
  exit
fi
# apt itself says where it looks, whichever of its two file formats that is written in.
# shellcheck disable=SC2016 # apt expands it
mirror=$(apt-get indextargets --format '$(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
  awk '$1 == "main" && $2 !~ /security/ && $2 ~ /\/debian\/?$/ && !found { found = $2 } END { print found }')
if [ -z "$mirror" ]; then
  echo "apt on this machine knows no Debian mirror; name one in SNOWBANK_TEST_MIRROR" >&2
  exit 1
fi
echo "$mirror"
