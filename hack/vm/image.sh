#!/usr/bin/env bash
#
# image.sh DIR: make the virtual machine of the e2e-vm tier in DIR: vmlinuz, the
# kernel of Debian's package for clouds, and root.img, a Debian with systemd and
# that kernel's modules. Nothing is done when both exist and neither this script nor
# e2e.service has changed since.
#
# The kernel has NVMe disks, ext4 and the serial ports built in, so the
# machine needs no initrd.
set -euo pipefail

dir=${1:?usage: $0 DIR}
suite=bookworm
kernel=linux-image-cloud-amd64
packages=systemd,systemd-sysv,dbus,iptables,nftables,apparmor,kmod,iproute2,libseccomp2
packages+=,busybox-static,uidmap,procps,util-linux,e2fsprogs,xfsprogs,jq,strace,ca-certificates

mkdir -p "$dir"
service=$(dirname "$0")/e2e.service
stamp=$(cat "$0" "$service" | sha256sum | cut -d' ' -f1)
if [[ -s $dir/vmlinuz && -s $dir/root.img && $(cat "$dir/stamp" 2>/dev/null) == "$stamp" ]]; then
    exit 0
fi
rm -f "$dir"/{vmlinuz,root.img,stamp}
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT

# A package list of the suite's own: what this machine's apt has may be another suite.
"$(dirname "$0")/../retry.sh" mmdebstrap --quiet --variant=minbase --include="$packages,$kernel" \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --customize-hook='rm -f "$1"/boot/initrd.img* "$1"/initrd.img* "$1"/var/cache/apt/archives/*.deb' \
    "$suite" "$work/root.tar"
mkdir "$work/root"
tar -xf "$work/root.tar" -C "$work/root" --exclude './dev/*'
rm "$work/root.tar"
cp "$work"/root/boot/vmlinuz-* "$dir/vmlinuz"

cp "$service" "$work/root/etc/systemd/system/"
ln -s ../e2e.service "$work/root/etc/systemd/system/multi-user.target.wants/e2e.service"
ln -sf /dev/null "$work/root/etc/systemd/system/systemd-timesyncd.service"
ln -sf /dev/null "$work/root/etc/systemd/system/apt-daily.timer"
ln -sf /dev/null "$work/root/etc/systemd/system/apt-daily-upgrade.timer"
echo e2e-vm >"$work/root/etc/hostname"
printf '127.0.0.1 localhost e2e-vm\n' >"$work/root/etc/hosts"
: >"$work/root/etc/fstab"

# 6 GiB, of which only what is used takes room.
truncate -s 6G "$dir/root.img.new"
mke2fs -q -F -t ext4 -L root -d "$work/root" "$dir/root.img.new"
mv "$dir/root.img.new" "$dir/root.img"
echo "$stamp" >"$dir/stamp"
