#!/usr/bin/env bash
#
# run.sh [test flags]: run test/e2e and, with the packages in _output/package-test, test/e2e-package inside of
# a virtual machine: another kernel (Debian's 6.1), cgroup v2, systemd, AppArmor. Prints what `go test -json` would
# print, and fails when a test fails, when the machine crashes and when
# E2E_VM_TIMEOUT (seconds; 2400, with LONG=1 7200) is over. The kernel's and systemd's messages go to
# _output/e2e-vm.console, how long it took to _output/e2e-vm.time, for gotestsum takes a line on standard error for an error.
#
# E2E_VM_CRASH_AFTER=seconds lets the kernel crash then, to see that this fails.
#
# Everything is emulated in software, so that it runs on machines without
# virtualization; several times slower than the e2e tier.
set -euo pipefail

cd "$(dirname "$0")/../.."
bin=$PWD/bin vm=$PWD/bin/vm output=$PWD/_output
timeout=${E2E_VM_TIMEOUT:-${LONG:+7200}}
timeout=${timeout:-2400}
mkdir -p "$output"
rm -f "$output"/e2e-vm.{console,time}
hack/vm/image.sh "$vm"

work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
mkdir -p "$work/payload/bin" "$work"/payload/test/{e2e,e2e-package}
cp -L "$bin"/{userns-shim,userns-shim-init,containerd,containerd-shim-runc-v2,ctr,runc,kubelet,probe,nriplugin} "$work/payload/bin/"
cp -rL "$bin/cni" "$work/payload/bin/"
cp hack/vm/guest.sh "$work/payload/"
cp -r manifests "$work/payload/"
cp -r "$bin"/{criu,criu-root,userdb,userdb-root} "$work/payload/bin/"
for package in e2e e2e-package; do
    CGO_ENABLED=0 go test -c -trimpath -o "$work/payload/test/$package/tests" "./test/$package"
done
mkdir "$work/payload/packages"
cp -r "$output"/package-test/{older,newer} "$work/payload/packages/"
# The machine starts one program, with the test flags.
cat >"$work/payload/bin/e2e.test" <<'END'
#!/bin/bash
export USERNS_SHIM_E2E_VM=1 USERNS_SHIM_PACKAGES=/payload/packages
status=0
for package in e2e e2e-package; do
    cd "/payload/test/$package" && ./tests "$@" || status=1
done
exit "$status"
END
chmod +x "$work/payload/bin/e2e.test"
{
    printf 'TEST_FLAGS=%q\n' "$*"
    printf 'TEST_TIMEOUT=%ss\n' "$((timeout - 60))"
    printf 'CRASH_AFTER=%q\n' "${E2E_VM_CRASH_AFTER:-}"
} >"$work/payload/settings"
truncate -s 1G "$work/payload.img"
mke2fs -q -F -t ext4 -d "$work/payload" "$work/payload.img"

# -snapshot keeps root.img as it is. On a busy machine the emulated timer fails the kernel's check, hence no_timer_check.
# Mitigations against speculation cost a quarter of the time here and hold nothing.
timeout --kill-after=10 "$timeout" qemu-system-x86_64 -M q35 -accel tcg,thread=multi -cpu max -smp 2 -m 6144 \
    -nographic -no-reboot -nodefaults -snapshot \
    -kernel "$vm/vmlinuz" \
    -append 'root=/dev/nvme0n1 rw console=ttyS0 psi=1 apparmor=1 security=apparmor panic=1 oops=panic no_timer_check mitigations=off quiet systemd.show_status=no' \
    -drive file="$vm/root.img",if=none,id=root,format=raw -device nvme,drive=root,serial=root \
    -drive file="$work/payload.img",if=none,id=payload,format=raw -device nvme,drive=payload,serial=payload \
    -serial "file:$output/e2e-vm.console" -serial "file:$work/tests" </dev/null &
machine=$!
trap 'kill "$machine" 2>/dev/null || true; rm -rf -- "$work"' EXIT

# The file of the second port is followed until the machine is gone.
touch "$work/tests"
tail -f --pid="$machine" -n +1 "$work/tests" 2>/dev/null | grep --line-buffered -v '^E2E-VM-EXIT ' |
    go tool test2json -t -p github.com/userns-shim/userns-shim/test/e2e || true
status=0
wait "$machine" || status=$?
# User and system time tell what a machine that others use hides.
times >"$work/times"
echo "ended after $SECONDS s; processor time, user and system, $(tail -n 1 "$work/times")" >"$output/e2e-vm.time"

ended=$(sed -n 's/^E2E-VM-EXIT \([0-9]*\).*/\1/p' "$work/tests")
if [[ -z $ended ]]; then
    echo "e2e-vm: the machine ended before the tests did (exit status $status of QEMU; 124 is a time-out after ${timeout} s); its last messages:" >&2
    tail -n 40 "$output/e2e-vm.console" >&2
    exit 1
fi
exit "$ended"
