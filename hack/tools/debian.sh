#!/usr/bin/env bash
#
# debian.sh ROOT PACKAGE...: unpack packages of the suite below, with all that they depend on, into the
# directory ROOT, for programs that the build machine's own suite has too old or not at all. They are
# downloaded by apt into a directory of their own and run by their own dynamic linker: nothing is installed. Exit status 3 says that there is no apt to do it with.
set -euo pipefail

suite=trixie
mirror=http://deb.debian.org/debian
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

if ! command -v apt-get >/dev/null || [[ ! -e $keyring ]]; then
    echo "$0: no apt with $keyring to fetch ${*:2} of Debian $suite" >&2
    exit 3
fi
# Each attempt takes new lists: what older ones name may have left the mirror.
if [[ -z ${DEBIAN_ATTEMPT:-} ]]; then
    DEBIAN_ATTEMPT=1 exec "$(dirname "$0")/../retry.sh" "$0" "$@"
fi
root=$1
shift
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
mkdir -p "$work"/{lists,cache/archives,state}/partial "$root"
: >"$work/state/status"
echo "deb [signed-by=$keyring] $mirror $suite main" >"$work/sources.list"
apt=(apt-get -qq
    -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=-
    -o Dir::State="$work/state" -o Dir::State::status="$work/state/status"
    -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache"
    -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none -o Debug::NoLocking=1
    -o APT::Update::Error-Mode=any)
"${apt[@]}" update </dev/null
"${apt[@]}" install -y --no-install-recommends --download-only "$@" </dev/null >/dev/null
for package in "$work"/cache/archives/*.deb; do
    dpkg-deb -x "$package" "$root"
done
