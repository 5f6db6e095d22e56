#!/usr/bin/env bash
#
# package.sh DIR ARCH...: make the .deb, the .rpm and the tarball of userns-shim for each architecture
# (amd64, arm64) in DIR. VERSION overrides what git describes. The files depend on the
# sources, the Go version and the commit's date alone: two runs give the same bytes.
set -euo pipefail

usage="usage: $0 DIR ARCH..."
dir=$(realpath -m "${1:?$usage}")
shift
[[ $# -gt 0 ]] || { echo "$usage" >&2 && exit 2; }
cd "$(dirname "$0")/.."
nfpm=${NFPM:-$PWD/bin/nfpm}
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
umask 022
export LC_ALL=C TZ=UTC
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y go.mod)}
export SOURCE_DATE_EPOCH

# As the Makefile has it.
version=${VERSION:-$(git describe --tags --always --dirty 2>/dev/null || echo v0.0.0-unknown)}
package=$(hack/package-version.sh "$version" "$(date -d "@$SOURCE_DATE_EPOCH" +%Y%m%d)")

# build ARCH DIR
build() {
    CGO_ENABLED=0 GOOS=linux GOARCH=$1 GOAMD64=v1 GOARM64=v8.0 go build -trimpath -buildvcs=false \
        -ldflags "-s -w -X github.com/userns-shim/userns-shim/internal/version.Version=$version" -o "$2/" ./cmd/...
}

changelog() {
    cat <<END
userns-shim ($package) unstable; urgency=medium

  * https://github.com/userns-shim/userns-shim/releases

 -- userns-shim authors <userns-shim@localhost>  $(date -R -d "@$SOURCE_DATE_EPOCH")
END
}

# lay_out fills $work/stage with what is the same on every architecture. The pages and the completions
# are written by the program itself, as built for this machine.
lay_out() {
    local stage=$work/stage shim=$work/host/userns-shim
    build "$(go env GOHOSTARCH)" "$work/host"
    mkdir -p "$stage"/{man8,completion}
    "$shim" config default >"$stage/config.yaml"
    "$shim" man "$stage/man8"
    gzip -9n "$stage"/man8/*.8
    for shell in bash zsh fish; do
        "$shim" completion "$shell" >"$stage/completion/userns-shim.$shell"
    done
    changelog | gzip -9n >"$stage/changelog.gz"
}

# notices ARCH BIN: the licenses of what is linked.
notices() { go run ./hack/bom -licenses "$2/userns-shim" "$2/userns-shim-init" | gzip -9n >"$work/stage/third-party.gz"; }

# tarball ARCH BIN: a tree for /usr/local.
tarball() {
    local name=userns-shim-$package-linux-$1 stage=$work/stage
    local tree=$work/tar/$name
    mkdir -p "$tree"/{bin,libexec/userns-shim,lib/systemd/system,share/{man,fish/vendor_completions.d,zsh/site-functions}} \
        "$tree"/share/{bash-completion/completions,doc/userns-shim,userns-shim}
    install -m 0755 "$2/userns-shim" "$2/userns-shim-init" "$tree/bin/"
    install -m 0755 packaging/kubelet-ids "$tree/libexec/userns-shim/"
    sed 's,/usr/bin/,/usr/local/bin/,' packaging/userns-shim.service >"$tree/lib/systemd/system/userns-shim.service"
    cp "$stage/config.yaml" "$tree/share/userns-shim/"
    cp -r "$stage/man8" "$tree/share/man/"
    cp "$stage/completion/userns-shim.bash" "$tree/share/bash-completion/completions/userns-shim"
    cp "$stage/completion/userns-shim.fish" "$tree/share/fish/vendor_completions.d/"
    cp "$stage/completion/userns-shim.zsh" "$tree/share/zsh/site-functions/_userns-shim"
    cp LICENSE README.md "$stage/third-party.gz" "$tree/share/doc/userns-shim/"
    tar --create --directory "$work/tar" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner \
        --mode=go-w --format=gnu "$name" | gzip -9n >"$dir/$name.tar.gz"
}

mkdir -p "$dir"
lay_out
for arch; do
    rm -rf "$work/stage/bin"
    build "$arch" "$work/stage/bin"
    notices "$arch" "$work/stage/bin"
    tarball "$arch" "$work/stage/bin"
    sed "s,@ARCH@,$arch,; s,@VERSION@,$package,; s,@STAGE@,$work/stage,g" packaging/nfpm.yaml >"$work/nfpm.yaml"
    for packager in deb rpm; do
        "$nfpm" package --config "$work/nfpm.yaml" --packager "$packager" --target "$dir/" >/dev/null
    done
done
