#!/usr/bin/env bash
#
# run.sh [-pods N] [-rounds N] [-parallel N] [-limit DURATION]
#
# userns-shim beside containerd's own CRI plugin, on one node that is made for it
# and removed. `make bench` builds first what this runs: everything in bin/. The
# table goes to the terminal, all samples to _output/bench.json. It needs root,
# and touches nothing of the machine's own containerd, network or cgroups.
set -euo pipefail

cd "$(dirname "$0")/../.."
if [[ $EUID -ne 0 ]]; then
    echo "$0: needs root, for namespaces, mounts and cgroups. Run it with" >&2
    # shellcheck disable=SC2016 # to be typed as it stands
    echo '    sudo -E env "PATH=$PATH" make bench' >&2
    exit 1
fi

mkdir -p _output
go build -o _output/bench ./hack/bench
exec _output/bench -o _output/bench.json "$@"
