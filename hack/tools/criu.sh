#!/usr/bin/env bash
#
# criu.sh DIR: put a criu into DIR that works on the kernels of today.
#
# Debian bookworm's CRIU 3.17 fails on Linux 6.18 ("Unexpected rt vDSO area bounds"). So CRIU
# and its libraries are those of debian.sh's suite. Where they cannot be had, the machine's criu is taken.
set -euo pipefail

dir=$(realpath -m "$1")
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
status=0
"$(dirname "$0")/debian.sh" "$work/root" criu || status=$?
if ((status == 3)); then
    if criu=$(command -v criu); then
        ln -sf "$criu" "$dir/criu"
        exit
    fi
    echo "$0: no criu on the PATH either: install CRIU 4.0 or later" >&2
fi
((status == 0)) || exit "$status"
linker=$(cd "$work/root" && ls usr/lib/*/ld-linux-*.so.* | head -n 1)
rm -rf "$dir/criu-root"
mkdir -p "$dir/criu-root/$(dirname "$linker")"
cp "$work/root/usr/sbin/criu" "$dir/criu-root/"
find "$work/root/$(dirname "$linker")" -maxdepth 1 -name '*.so*' -exec cp -a {} "$dir/criu-root/$(dirname "$linker")/" \;
cat >"$dir/criu" <<EOF
#!/bin/sh
# CRIU of Debian with its own libraries, made by hack/tools/criu.sh.
root=\$(dirname "\$(readlink -f "\$0")")/criu-root
exec "\$root/$linker" --library-path "\$root/$(dirname "$linker")" "\$root/criu" "\$@"
EOF
chmod 755 "$dir/criu"
"$dir/criu" --version >/dev/null
