# script.sh FILE WITNESS PID: what Look does, in the shell of a busybox. PID 0 is none.
file=$1 witness=$(readlink -f "$2") pid=$3

# words prints its arguments as one JSON string; quotes and backslashes are left out.
words() { printf '"%s"' "$(printf '%s' "$*" | tr -d '"\\' | tr '\n\t' '  ')"; }
owner() { stat -c '{"uid":%u,"gid":%g}' "$1"; }
lines() { # of a file, joined by "; "
    out=
    while read -r a b c; do out="$out${out:+; }$a${b:+ $b}${c:+ $c}"; done <"$1"
    words "$out"
}
# tried runs a command and prints what came of it.
tried() { if message=$("$@" 2>&1); then printf '{"value":{}}'; else printf '{"value":{},"error":%s}' "$(words "${message:-$1 fails}")"; fi; }

set_hostname() {
    old=$(hostname) && hostname "${file##*/}" && [ "$(hostname)" = "${file##*/}" ] && hostname "$old"
}
mount_tmpfs() {
    mkdir "$file.mnt" && mount -t tmpfs tmpfs "$file.mnt" && umount "$file.mnt"
    status=$?
    rmdir "$file.mnt"
    return $status
}
made() {
    if message=$( (set -C; : >"$file") 2>&1); then
        printf '{"value":%s}' "$(owner "$file")"
    else
        printf '{"value":{"uid":0,"gid":0},"error":%s}' "$(words "$message")"
    fi
}
list() { # of the lines of standard input
    comma=
    printf '['
    while read -r line; do printf '%s%s' "$comma" "$(words "$line")"; comma=,; done
    printf ']'
}
processes() { for p in /proc/[0-9]*/cmdline; do head -c 200 "$p" | tr '\0\n' '  ' && echo; done 2>/dev/null; }
interfaces() { sed -n 's/^ *\([^:]*\):.*/\1/p' /proc/net/dev; }

printf '{"uidMap":%s,"gidMap":%s,"setgroups":%s' \
    "$(lines /proc/self/uid_map)" "$(lines /proc/self/gid_map)" "$(lines /proc/self/setgroups)"
printf ',"id":{"uid":%s,"gid":%s},"root":%s' "$(id -u)" "$(id -g)" "$(owner /)"
printf ',"witness":{"path":%s,"inode":%s,"owner":%s}' \
    "$(words "$witness")" "$(stat -c %i "$witness")" "$(owner "$witness")"
printf ',"made":%s' "$(made)"
printf ',"processes":%s,"interfaces":%s' "$(processes | list)" "$(interfaces | list)"
if [ "$pid" != 0 ]; then printf ',"signal":%s' "$(tried kill -0 "$pid")"; fi
read -r first second rest </proc/self/uid_map
if [ "$first $second" = "0 0" ]; then
    printf ',"hostname":{"value":{},"error":"not tried in the host user namespace"}'
    printf ',"tmpfs":{"value":{},"error":"not tried in the host user namespace"}'
else
    printf ',"hostname":%s,"tmpfs":%s' "$(tried set_hostname)" "$(tried mount_tmpfs)"
fi
echo '}'
