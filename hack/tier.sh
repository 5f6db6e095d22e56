#!/usr/bin/env bash
#
# tier.sh unit|scale|integration|e2e|e2e-kubelet|e2e-package|e2e-vm: run one tier of tests (the Makefile says what each
# is) with gotestsum from bin/.
#
# All output goes to _output/TIER.log; the terminal gets the failures with their
# output, the reasons of skips, and last gotestsum's own summary line. A tier
# in which no test ran, or every one was skipped, has failed: it held nothing.
set -euo pipefail

tier=${1:-}
cd "$(dirname "$0")/.."
bin=$PWD/bin output=$PWD/_output
own=(./cmd/... ./pkg/... ./internal/...)

# importers prints the packages whose tests import internal/testkit
# or what lies below it.
importers() {
    go list -f '{{range .TestImports}}{{.}} {{$.ImportPath}}
{{end}}{{range .XTestImports}}{{.}} {{$.ImportPath}}
{{end}}' "${own[@]}" | awk '$1 ~ "/internal/testkit(/|$)" && !seen[$2]++ { print $2 }'
}

# as_nobody prepares a run as uid 65534: a home directory of its own, and a copy of
# the sources when it cannot reach them here, as below root's home.
as_nobody() {
    args+=(-exec "$PWD/hack/as-nobody.sh")
    scratch=$(mktemp -d)
    trap 'rm -rf -- "$scratch"' EXIT
    chmod 0755 "$scratch"
    export NOBODY_HOME=$scratch/home
    install -d -o 65534 -g 65534 "$NOBODY_HOME"
    setpriv --reuid=65534 --regid=65534 --clear-groups test -r "$PWD/go.mod" && return
    mkdir "$scratch/src"
    tar --exclude=./.git --exclude="./${bin##*/}" --exclude="./${output##*/}" -cf - . | tar -xf - -C "$scratch/src"
    chmod -R go+rX -- "$scratch/src"
    cd "$scratch/src"
}

case $tier in
unit)
    args=(-race -timeout 10m)
    [[ $EUID -ne 0 ]] || as_nobody
    packages=$(go list "${own[@]}" | grep -v '/internal/layering$')
    ;;
scale)
    # The race detector takes 20 times as long, so with it these tests are a part of themselves.
    args=(-count 1 -timeout 10m)
    packages=./pkg/idpool
    ;;
integration)
    args=(-race -count 1 -timeout 10m)
    packages=$(importers)
    ;;
e2e)
    args=(-count 1 -timeout 35m)
    packages=$(go list ./test/e2e/...)
    ;;
e2e-kubelet)
    # These tests wait more than they work.
    args=(-count 1 -timeout 20m -parallel 12)
    packages=$(go list ./test/e2e-kubelet/...)
    ;;
e2e-package)
    args=(-count 1 -timeout 10m)
    packages=$(go list ./test/e2e-package/...)
    ;;
e2e-vm)
    chosen=$(grep -hv '^#\|^$' hack/vm/tests ${LONG:+hack/vm/tests.long} | paste -sd '|')
    command=(hack/vm/run.sh -test.run "${RUN:-^($chosen)\$}")
    ;;
*)
    echo "usage: $0 unit|scale|integration|e2e|e2e-kubelet|e2e-package|e2e-vm" >&2
    exit 2
    ;;
esac
if [[ $tier == e2e-vm ]]; then
    args=(--raw-command --ignore-non-json-output-lines -- "${command[@]}")
elif [[ -n $packages ]]; then
    # shellcheck disable=SC2206 # one argument per package
    args=(-- "${args[@]}" $packages)
else
    echo "$tier: no package has tests of this tier" >&2
    exit 1
fi

mkdir -p "$output"
log=$output/$tier.log
echo "$tier: running, output in _output/$tier.log"
status=0
"$bin/gotestsum" --format standard-verbose \
    --jsonfile "$output/$tier.json" --junitfile "$output/$tier.xml" \
    "${args[@]}" >"$log" 2>&1 </dev/null || status=$?

# The end of the log: the sections "=== Skipped", "=== Failed", "=== Errors",
# and the line that counts.
done_line='^DONE ([0-9]+) tests?(, ([0-9]+) skipped)?'
summary=$(grep -E "$done_line" "$log" | tail -n 1) || {
    tail -n 100 "$log"
    echo "$tier: gotestsum did not finish (exit status $status)" >&2
    exit 1
}
# Without privilege all of root's tests are skipped by intent, and would fill
# the screen; the number of them is in the last line.
if [[ $tier != unit ]]; then
    sed -n '/^=== Skipped$/,/^=== \(Failed\|Errors\)$\|^DONE /{/^=== \(Failed\|Errors\)$\|^DONE /!p}' "$log"
fi
if [[ $status -ne 0 ]]; then
    sed -n '/^=== \(Failed\|Errors\)$/,$p' "$log" | sed '/^DONE /d' | tail -n 300
fi

if [[ $summary =~ $done_line ]] && ((BASH_REMATCH[1] - ${BASH_REMATCH[3]:-0} == 0)); then
    echo "$tier: no test ran" >&2
    status=1
fi
# A name that no test has any more would be left out in silence.
if [[ $tier == e2e-vm && -z ${RUN:-} ]]; then
    for name in ${chosen//|/ }; do
        grep -q "\"Action\":\"\(pass\|fail\)\".*\"Test\":\"$name\"" "$output/$tier.json" && continue
        echo "$tier: $name did not run" >&2
        status=1
    done
fi
if [[ $tier == e2e-vm && -s $output/$tier.time ]]; then # none when there was no machine
    sed "s/^/$tier: /" "$output/$tier.time"
fi
echo "$tier: $summary"
exit "$status"
