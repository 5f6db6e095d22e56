#!/usr/bin/env bash
#
# package-root.sh FILE: make FILE, a tar of a small Debian with systemd, into which the e2e-package tier
# installs the packages. Nothing is done when it exists and this script has not changed since.
set -euo pipefail

file=${1:?usage: $0 FILE}
stamp=$(sha256sum "$0" | cut -d' ' -f1)
if [[ -s $file && $(cat "$file.stamp" 2>/dev/null) == "$stamp" ]]; then
    exit 0
fi
mkdir -p "$(dirname "$file")"
"$(dirname "$0")/retry.sh" mmdebstrap --quiet --variant=minbase --include=systemd,uidmap \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook='rm -f "$1"/var/cache/apt/archives/*.deb' \
    bookworm "$file.new.tar"
mv "$file.new.tar" "$file"
echo "$stamp" >"$file.stamp"
