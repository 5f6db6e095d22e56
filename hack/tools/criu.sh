#!/usr/bin/env bash
#
# criu.sh DIR: put a criu into DIR that works on the kernels of today.
#
# Debian bookworm's CRIU 3.17 fails on Linux 6.18 ("Unexpected rt vDSO area bounds"). So CRIU
# and its libraries are those of the suite below, downloaded by apt into a directory of their own, and
# run by their own dynamic linker: nothing is installed. Where there is no apt, the machine's criu is taken.
set -euo pipefail

suite=trixie
mirror=http://deb.debian.org/debian
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

dir=$(realpath -m "$1")
if ! command -v apt-get >/dev/null || [[ ! -e $keyring ]]; then
    if criu=$(command -v criu); then
        ln -sf "$criu" "$dir/criu"
        exit
    fi
    echo "$0: no criu on the PATH, and no apt with $keyring to fetch it: install CRIU 4.0 or later" >&2
    exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{lists,cache/archives,state}/partial "$work/root" "$dir"
: >"$work/state/status"
echo "deb [signed-by=$keyring] $mirror $suite main" >"$work/sources.list"
apt=(apt-get -qq
    -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=-
    -o Dir::State="$work/state" -o Dir::State::status="$work/state/status"
    -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache"
    -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none -o Debug::NoLocking=1)
"${apt[@]}" update </dev/null
"${apt[@]}" install -y --no-install-recommends --download-only criu </dev/null >/dev/null
for package in "$work"/cache/archives/*.deb; do
    dpkg-deb -x "$package" "$work/root"
done
linker=$(cd "$work/root" && ls usr/lib/*/ld-linux-*.so.* | head -n 1)
rm -rf "$dir/criu-root"
mkdir -p "$dir/criu-root/$(dirname "$linker")"
cp "$work/root/usr/sbin/criu" "$dir/criu-root/"
find "$work/root/$(dirname "$linker")" -maxdepth 1 -name '*.so*' -exec cp -a {} "$dir/criu-root/$(dirname "$linker")/" \;
cat >"$dir/criu" <<EOF
#!/bin/sh
# CRIU of Debian $suite with its own libraries, made by hack/tools/criu.sh.
root=\$(dirname "\$(readlink -f "\$0")")/criu-root
exec "\$root/$linker" --library-path "\$root/$(dirname "$linker")" "\$root/criu" "\$@"
EOF
chmod 755 "$dir/criu"
"$dir/criu" --version >/dev/null
