#!/usr/bin/env bash
#
# as-nobody.sh BINARY ARGS...: run a test binary without privilege; made for
# `go test -exec` invoked by root. NOBODY_HOME is its home directory.
set -euo pipefail

binary=$1 uid=65534
# The go command keeps the binary below a temporary directory with mode 0700.
work=${binary%/*/*}
[[ $work == */go-build* ]] || {
    echo "$0: $binary is not in a temporary directory of the go command" >&2
    exit 1
}
chmod go+x -- "$work"

drop=(setpriv --reuid="$uid" --regid="$uid" --clear-groups --inh-caps=-all)
# Tests read their testdata relative to the package's directory.
"${drop[@]}" test -r . -a -x . || {
    echo "$0: uid $uid cannot read $PWD: make the checkout readable, or run the tests as an ordinary user" >&2
    exit 1
}

# Root's caches are out of reach: a test that runs the go command gets new ones.
exec "${drop[@]}" env --unset=GOCACHE --unset=GOMODCACHE --unset=GOPATH \
    HOME="${NOBODY_HOME:-/nonexistent}" "$@"
