#!/usr/bin/env bash
#
# test.sh: every tier that this machine can run, one after the other, each as a
# target of the Makefile. A tier that fails does not keep the next from running.
# Last come how long each took and the test runner's own summary of each.
set -euo pipefail

cd "$(dirname "$0")/.."
make=${MAKE:-make}
tiers=(lint unit scale)
if [[ $EUID -eq 0 ]]; then
    tiers+=(integration e2e e2e-kubelet e2e-package e2e-vm)
fi

mkdir -p _output
rm -f _output/{unit,scale,integration,e2e,e2e-kubelet,e2e-package,e2e-vm}.{log,json,xml}
report=() failed=0
for tier in modules build tools "${tiers[@]}"; do
    began=$SECONDS outcome=ok
    "$make" --no-print-directory "$tier" || outcome=FAILED
    [[ $outcome == ok ]] || failed=1
    report+=("$(printf '%-12s %-6s %4ds' "$tier" "$outcome" $((SECONDS - began)))")
done

echo
printf '%s\n' "${report[@]}" "$(printf '%-12s %-6s %4ds' total '' "$SECONDS")"
if [[ $EUID -ne 0 ]]; then
    echo "integration and the end-to-end tiers were left out: they need root"
fi
for tier in "${tiers[@]:1}"; do
    printf '%-12s %s\n' "$tier" "$(grep -E '^DONE ' "_output/$tier.log" 2>/dev/null | tail -n 1 || echo 'did not finish')"
done
exit "$failed"
