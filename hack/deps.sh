#!/usr/bin/env bash
#
# deps.sh build   what is needed to compile: make, a C compiler, pkg-config, libseccomp
# deps.sh test    what the tests run beside that
# deps.sh package what the e2e-package tier needs beside that
# deps.sh vm      what the virtual machine of the e2e-vm tier needs
#
# Each need is checked by what it provides, not by the name of a package, so
# that other distributions pass as well. What is missing is installed when this
# runs as root on Debian or a derivative; otherwise it is named together with
# the command that installs it. Nothing is done when nothing is missing.
set -euo pipefail

# compiles reads a C program and tells whether it compiles.
compiles() { ${CC:-gcc} -x c -fsyntax-only - 2>/dev/null; }

has_libc_headers() { compiles <<<'#include <stdlib.h>'; }
has_libseccomp() { pkg-config --exists libseccomp 2>/dev/null && compiles <<<'#include <seccomp.h>'; }
has_static_busybox() {
    local busybox
    busybox=$(command -v busybox) && ! ldd "$busybox" 2>/dev/null | grep -q '=>'
}
has_cmd() { command -v "$1" >/dev/null; }

# require adds the package to those that are missing, unless the check holds.
missing=()
require() {
    local package=$1
    shift
    "$@" || missing+=("$package")
}

build_needs() {
    require make has_cmd make
    require gcc has_cmd "${CC:-gcc}"
    require libc6-dev has_libc_headers
    require pkg-config has_cmd pkg-config
    require libseccomp-dev has_libseccomp
}

test_needs() {
    require busybox-static has_static_busybox
    require iproute2 has_cmd ip
    require iptables has_cmd iptables
    require nftables has_cmd nft
    require jq has_cmd jq
    require procps has_cmd ps
    require util-linux has_cmd setpriv
    require e2fsprogs has_cmd mkfs.ext4
    require strace has_cmd strace
    require crun has_cmd crun
    require uidmap has_cmd getsubids
}

# Derivatives have Debian's keys in a package that they do not install by themselves.
debian_needs() {
    require mmdebstrap has_cmd mmdebstrap
    require debian-archive-keyring test -e /usr/share/keyrings/debian-archive-keyring.gpg
}

package_needs() {
    require dpkg has_cmd dpkg-deb
    require rpm has_cmd rpm
    debian_needs
}

vm_needs() {
    require qemu-system-x86 has_cmd qemu-system-x86_64
    debian_needs
    require e2fsprogs has_cmd mke2fs
}

# apt_install installs packages; the package lists are fetched only when the
# ones at hand do not do, as on a fresh image that has none. A source of the machine's own
# that does not answer is no matter when the packages are found without.
apt_install() {
    local apt="apt-get -qq -o DPkg::Lock::Timeout=300"
    local install="$apt install -y --no-install-recommends"
    export DEBIAN_FRONTEND=noninteractive
    $install "$@" </dev/null >/dev/null 2>&1 && return
    "$(dirname "$0")/retry.sh" sh -c "$apt update || true; $install \"\$@\"" sh "$@" >/dev/null
}

tier=${1:-}
case $tier in
build | test | package | vm) "${tier}_needs" ;;
*)
    echo "usage: $0 build|test|package|vm" >&2
    exit 2
    ;;
esac
[[ ${#missing[@]} -gt 0 ]] || exit 0

if [[ $EUID -eq 0 && -e /etc/debian_version ]] && has_cmd apt-get; then
    echo "installing Debian packages: ${missing[*]}"
    apt_install "${missing[@]}"
    wanted=${missing[*]}
    missing=()
    "${tier}_needs"
    [[ ${#missing[@]} -gt 0 ]] || exit 0
    echo "$0: installed $wanted, and yet what these provide is not found: ${missing[*]}" >&2
    exit 1
fi
echo "missing Debian packages: ${missing[*]}; install them with" >&2
echo "    sudo apt-get update && sudo apt-get install -y ${missing[*]}" >&2
exit 1
