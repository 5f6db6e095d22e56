#!/usr/bin/env bash
#
# userdb.sh DIR: put programs that look users and groups up as a node with systemd does into DIR: userdb, which
# runs userdbctl, getent, ls, ps or systemd-nspawn of Debian with nss-systemd, and userdb-root with what they need.
set -euo pipefail

dir=$(realpath -m "$1")
programs=(usr/bin/userdbctl usr/bin/getent usr/bin/ls usr/bin/ps usr/bin/systemd-nspawn)
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
"$(dirname "$0")/debian.sh" "$work/root" systemd-userdbd systemd-container libnss-systemd libc-bin coreutils procps
linker=$(cd "$work/root" && ls usr/lib/*/ld-linux-*.so.* | head -n 1)
libraries=$(dirname "$linker")
rm -rf "$dir/userdb-root"
mkdir -p "$dir/userdb-root/$libraries/systemd"
for program in "${programs[@]}"; do
    cp "$work/root/$program" "$dir/userdb-root/"
done
find "$work/root/$libraries" -maxdepth 1 -name '*.so*' -exec cp -a {} "$dir/userdb-root/$libraries/" \;
find "$work/root/$libraries/systemd" -maxdepth 1 -name '*.so*' -exec cp -a {} "$dir/userdb-root/$libraries/systemd/" \;
cat >"$dir/userdb" <<EOF2
#!/bin/sh
# userdb PROGRAM [ARGS]: a program of Debian with its own libraries, made by hack/tools/userdb.sh.
root=\$(dirname "\$(readlink -f "\$0")")/userdb-root
program=\$1
shift
exec "\$root/$linker" --library-path "\$root/$libraries:\$root/$libraries/systemd" "\$root/\$program" "\$@"
EOF2
chmod 755 "$dir/userdb"
"$dir/userdb" userdbctl --version >/dev/null
