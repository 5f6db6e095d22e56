#!/usr/bin/env bash
#
# build.sh TOOL DIR: build TOOL at its pinned version into DIR.
#
# Each directory beside this script is a Go module of its own that pins one tool
# by its go.mod ("tool" lines name the commands) and go.sum. They are apart
# because one module would make all of them agree on one version of every
# dependency; this way each is built with the dependencies of its own release.
set -euo pipefail

tool=$1 dir=$(realpath -m "$2")
cd "$(dirname "$0")/$tool"

# pinned MODULE prints the version that go.mod pins.
pinned() { ../../retry.sh go list -m -f '{{.Version}}' "$1"; }

# build [FLAG...] OUTPUT COMMAND... builds without the version control stamp,
# which would be that of this repository rather than of the tool. Modules are downloaded before, when it says only what it would do.
build() {
    ../../retry.sh go build -n -trimpath -buildvcs=false "$@" >/dev/null
    go build -trimpath -buildvcs=false "$@"
}

case $tool in
containerd)
    module=github.com/containerd/containerd/v2
    ldflags="-X $module/version.Version=$(pinned $module)"
    # With cgo, as its releases are: without it there is no btrfs snapshotter.
    CGO_ENABLED=1 build -tags urfave_cli_no_docs -ldflags "$ldflags" \
        -o "$dir/" $module/cmd/containerd $module/cmd/ctr
    CGO_ENABLED=0 build -tags urfave_cli_no_docs,no_grpc -ldflags "$ldflags" \
        -o "$dir/" $module/cmd/containerd-shim-runc-v2
    ;;
runc)
    # runc carries its version in an embedded file.
    CGO_ENABLED=1 build -tags seccomp,urfave_cli_no_docs -o "$dir/" tool
    ;;
cni)
    module=github.com/containernetworking/plugins
    CGO_ENABLED=0 build -ldflags "-X $module/pkg/utils/buildversion.BuildVersion=$(pinned $module)" \
        -o "$dir/cni/" tool
    ;;
promtool)
    # Without service discovery: rules and metrics need none, and it is most of what promtool is
    # made of. go.mod was made with the same tag, GOFLAGS="-mod=mod -tags=remove_all_sd" go list -deps tool;
    # "go mod tidy" would add the client of every cloud.
    CGO_ENABLED=0 build -tags remove_all_sd -o "$dir/" tool
    ;;
kubelet)
    # Without debugging information, as its releases are: linking takes less time and memory.
    CGO_ENABLED=0 build -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$(pinned k8s.io/kubernetes)" \
        -o "$dir/" tool
    ;;
*)
    CGO_ENABLED=0 build -o "$dir/" tool
    ;;
esac
