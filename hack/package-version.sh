#!/usr/bin/env bash
#
# package-version.sh VERSION DATE: the version of packages of VERSION, which is a tag or what git describes, in
# the order of dpkg and rpm: v1.2.0-rc.1 becomes 1.2.0~rc.1, which comes before 1.2.0; five commits after v1.2.0
# is 1.2.0+5.gabc; and without a tag it is less than any release, 0.0.0~gitDATE.abc.
set -euo pipefail

version=${1:?usage: $0 VERSION DATE} date=${2:?usage: $0 VERSION DATE}
if [[ $version == v[0-9]* ]]; then
    sed -E 's/^v//; s/-dirty$/+dirty/; s/-([0-9]+)-g([0-9a-f]+)/+\1.g\2/; s/-/~/; s/-/./g' <<<"$version"
else
    echo "0.0.0~git$date.${version//-/.}"
fi
