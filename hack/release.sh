#!/usr/bin/env bash
#
# release.sh DIR [ARCH...]: make what is released in DIR, for amd64 and arm64 unless told otherwise: packages and
# tarballs, an SBOM for each architecture (CycloneDX, from what the linker wrote into the programs)
# and SHA256SUMS. All is built a second time, from a copy of the sources in another directory with
# an empty build cache, and has to be the same, byte for byte. VERSION is the tag. Nothing is uploaded.
#
# CACHE=warm takes the second build's compiled packages from the first, which is minutes faster and compares
# all but the compiler's work: for tests.
set -euo pipefail

dir=$(realpath -m "${1:?usage: $0 DIR [ARCH...]}")
shift
archs=("$@")
[[ $# -gt 0 ]] || archs=(amd64 arm64)
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
export VERSION=${VERSION:?the tag that is released, such as v1.2.3}
export NFPM=${NFPM:-$PWD/bin/nfpm}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH

rm -rf -- "$dir"
hack/package.sh "$dir" "${archs[@]}"

mkdir -p "$work/elsewhere/src"
git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- --create --file=- |
    tar --extract --file=- --directory "$work/elsewhere/src"
(
    cd "$work/elsewhere/src"
    umask 077
    [[ ${CACHE:-} == warm ]] || export GOCACHE=$work/cache
    TZ=Asia/Tokyo LC_ALL=C.UTF-8 hack/package.sh "$work/again" "${archs[@]}"
)
diff --recursive --brief "$dir" "$work/again" || {
    echo "$0: two builds are different" >&2
    exit 1
}

package=$(hack/package-version.sh "$VERSION" "$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y%m%d)")
for arch in "${archs[@]}"; do
    name=userns-shim-$package-linux-$arch
    tar -xzf "$dir/$name.tar.gz" -C "$work"
    go run ./hack/bom -version "$package" "$work/$name/bin/userns-shim" "$work/$name/bin/userns-shim-init" >"$dir/$name.cdx.json"
done
cd "$dir"
sha256sum -- * >"$work/SHA256SUMS"
mv "$work/SHA256SUMS" .
