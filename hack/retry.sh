#!/usr/bin/env bash
#
# retry.sh COMMAND...: run a command that downloads, and run it again when it fails, for mirrors and proxies have
# moments in which they do not answer, or hold half of an update. There are four attempts with pauses of 85 seconds in all, and none
# may take longer than 20 minutes. What a command says that fails comes on standard error; its output is
# shown only if it succeeds.
set -euo pipefail

output=$(mktemp) errors=$(mktemp)
trap 'rm -f -- "$output" "$errors"' EXIT
for pause in 5 20 60 0; do
    status=0
    timeout 20m "$@" >"$output" 2>"$errors" </dev/null || status=$?
    if ((status == 0)); then
        cat "$output"
        exit
    fi
    {
        cat "$output" "$errors" | tail -n 20
        echo "$0: exit status $status of: $*"
        ((pause == 0)) || echo "$0: again in $pause seconds"
    } >&2
    sleep "$pause"
done
echo "$0: given up: is the network there, and what the command above downloads from?" >&2
exit "$status"
