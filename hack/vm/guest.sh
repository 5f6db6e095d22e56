#!/bin/bash
#
# What runs inside of the machine, from its second disk: the e2e tests, with their output on the
# second serial port. The last line there is the tests' exit status, by which run.sh tells
# an end from a crash.
set -u

out=/dev/ttyS1
stty -F "$out" raw -echo
for module in overlay veth bridge br_netfilter nf_tables nft_compat nft_chain_nat xt_comment xt_MASQUERADE xt_nat \
    xt_addrtype xt_conntrack xt_mark xt_multiport xt_statistic xfs erofs btrfs loop fuse; do
    modprobe "$module" || echo "module $module: none"
done
ip link set lo up
sysctl -qw net.ipv4.ip_forward=1 fs.inotify.max_user_instances=1024

export PATH=/payload/bin:/payload/bin/cni:$PATH HOME=/root USERNS_SHIM_BIN=/payload/bin
# shellcheck disable=SC1091 # written by run.sh
source /payload/settings
cd /payload/test/e2e || exit 1
if [[ -n $CRASH_AFTER ]]; then
    (sleep "$CRASH_AFTER" && echo c >/proc/sysrq-trigger) &
fi
# shellcheck disable=SC2086 # flags, one word each
/payload/bin/e2e.test -test.v=test2json -test.timeout "$TEST_TIMEOUT" $TEST_FLAGS >"$out" 2>&1 </dev/null
printf '\nE2E-VM-EXIT %d\n' "$?" >"$out"
sync
systemctl --no-block --force poweroff
