#!/usr/bin/env bash
#
# demo.sh         two pods with hostUsers: false on a node that is made for them, shown and
#                 removed; with KEEP=1 it goes on running in the background
# demo.sh stop    remove what KEEP=1 left running
#
# `make demo` builds first what this runs: everything in bin/. It needs root, and
# touches nothing of the machine's own containerd, network or cgroups.
set -euo pipefail

cd "$(dirname "$0")/.."
if [[ $EUID -ne 0 ]]; then
    echo "$0: needs root, for namespaces, mounts and cgroups. Run it with" >&2
    # shellcheck disable=SC2016 # to be typed as it stands
    echo '    sudo -E env "PATH=$PATH" make demo' >&2
    exit 1
fi

mode=${1:-}
if [[ -z $mode && -n ${KEEP:-} && ${KEEP:-} != 0 ]]; then
    mode=keep
fi
mkdir -p _output
go build -o _output/demo ./hack/demo
exec _output/demo ${mode:+"$mode"}
