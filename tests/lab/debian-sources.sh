#!/bin/bash
# Prints the sources of Debian 12 that this host's apt uses, or Debian's own.
set -euo pipefail
# shellcheck disable=SC2016 # apt expands these
lines=$(apt-get indextargets --format 'deb $(REPO_URI) $(CODENAME) $(COMPONENT)' \
    'Created-By: Packages' 'Origin: Debian' 2>/dev/null |
    grep -E '^deb [^ ]+ bookworm(-updates|-security)? main$' | sort -u) || true
if ! grep -q ' bookworm main$' <<<"$lines"; then
    lines='deb http://deb.debian.org/debian bookworm main
deb http://deb.debian.org/debian bookworm-updates main
deb http://deb.debian.org/debian-security bookworm-security main'
fi
echo "$lines"
