package ns

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// ErrSysctl says that a sysctl is not the pod's to set: malformed, not kept per namespace, kept by
// a namespace that the pod shares with the host, unknown to the kernel, or given a value that
// the kernel refuses.
var ErrSysctl = errors.New("sysctl refused")

// Own says which of the namespaces that keep sysctls are the pod's own.
type Own struct{ Network, IPC, UTS bool }

// owner is the kind of namespace that keeps a sysctl.
type owner string

const (
	ownerNone    owner = ""
	ownerNetwork owner = "network"
	ownerIPC     owner = "IPC"
	ownerUTS     owner = "UTS"
)

// ipcSysctls are the names below /proc/sys/kernel that the kernel registers per IPC namespace
// (ipc/ipc_sysctl.c). They are spelled out: a prefix would let through what a later kernel adds.
var ipcSysctls = []string{
	"auto_msgmni", "msg_next_id", "msgmax", "msgmnb", "msgmni", "sem", "sem_next_id",
	"shm_next_id", "shm_rmid_forced", "shmall", "shmmax", "shmmni",
}

// ValidateSysctl reports whether a pod that owns the given namespaces may set a sysctl. The name
// is spelled as sysctl(8) takes it: whichever of '.' and '/' comes first separates, and after a
// leading '.' a '/' stands for a dot (net.ipv4.conf.eth0/100.forwarding). kernel.hostname is
// refused: a pod's name comes from its own field. Errors wrap ErrSysctl. Nothing is read from
// the system.
func ValidateSysctl(name string, own Own) error {
	path, err := sysctlPath(name)
	if err != nil {
		return err
	}
	switch keeper := sysctlOwner(path); {
	case keeper == ownerNone:
		return fmt.Errorf("%w: %q is not kept per namespace", ErrSysctl, name)
	case keeper == ownerNetwork && !own.Network,
		keeper == ownerIPC && !own.IPC,
		keeper == ownerUTS && !own.UTS:
		return fmt.Errorf("%w: %q needs an %s namespace of the pod's own", ErrSysctl, name, keeper)
	}
	return nil
}

// SplitSysctls parts a pod's sysctls by the time they can be written. Late are those of the
// network, after the pod's interfaces exist: a name may contain an interface
// (net.ipv4.conf.eth0.*), and CNI plugins set some of them themselves (disable_ipv6), which must
// not undo the pod's choice. All others are early; names that are malformed are among them.
func SplitSysctls(sysctls map[string]string) (early, late map[string]string) {
	early, late = map[string]string{}, map[string]string{}
	for name, value := range sysctls {
		if path, err := sysctlPath(name); err == nil && sysctlOwner(path) == ownerNetwork {
			late[name] = value
		} else {
			early[name] = value
		}
	}
	return early, late
}

// sysctl is one to be written.
type sysctl struct {
	name, value string
	path        []string
}

// sortedSysctls returns valid sysctls in the order in which they are written: that of their
// names, so that the outcome does not depend on chance.
func sortedSysctls(sysctls map[string]string) []sysctl {
	var sorted []sysctl
	for _, name := range slices.Sorted(maps.Keys(sysctls)) {
		path, err := sysctlPath(name)
		if err != nil {
			continue // refused before, by ValidateSysctl
		}
		sorted = append(sorted, sysctl{name, sysctls[name], path})
	}
	return sorted
}

// pingGroups is the one sysctl whose value is ids, of groups: what the kernel makes of them depends on the
// user namespace of whoever writes.
const pingGroups = "net/ipv4/ping_group_range"

// onHost is s as a writer in the host's user namespace spells it for a pod with that mapping, nil for the
// host's own. A last group beyond the pod's stands for all that it has, as in the customary "0 2147483647".
func (s sysctl) onHost(user *IDMap) (sysctl, error) {
	if user == nil || user.Length == 0 || strings.Join(s.path, "/") != pingGroups {
		return s, nil
	}
	words := strings.Fields(s.value)
	if len(words) != 2 {
		return s, nil // the kernel says what it thinks of that
	}
	first, err1 := strconv.ParseUint(words[0], 0, 31)
	last, err2 := strconv.ParseUint(words[1], 0, 31)
	if err1 != nil || err2 != nil || first > last { // turned round, it is no group at all
		return s, nil
	}
	if first >= uint64(user.Length) {
		return s, fmt.Errorf("%w: %q is set to %q: the pod has %d groups", ErrSysctl, s.name, s.value, user.Length)
	}
	last = min(last, uint64(user.Length)-1)
	s.value = fmt.Sprintf("%d %d", uint64(user.HostID)+first, uint64(user.HostID)+last)
	return s, nil
}

// file is the path of s.
func (s sysctl) file() string {
	return "/proc/sys/" + strings.Join(s.path, "/")
}

// line is what is written to the file. The newline lets an empty value clear a list, as with
// sysctl(8).
func (s sysctl) line() []byte {
	return []byte(s.value + "\n")
}

// sysctlPath converts a name to its components below /proc/sys. No component is empty, "." or
// "..", so that the path cannot leave the directory.
func sysctlPath(name string) ([]string, error) {
	path := name
	if i := strings.IndexAny(name, "./"); i >= 0 && name[i] == '.' {
		path = strings.Map(func(r rune) rune {
			switch r {
			case '.':
				return '/'
			case '/':
				return '.'
			}
			return r
		}, name)
	}
	components := strings.Split(path, "/")
	bad := slices.ContainsFunc(components, func(c string) bool { return c == "" || c == "." || c == ".." })
	if bad || len(components) < 2 || strings.ContainsFunc(name, unicode.IsControl) {
		return nil, fmt.Errorf("%w: %q is no name of a sysctl", ErrSysctl, name)
	}
	return components, nil
}

// sysctlOwner returns which kind of namespace keeps the sysctl at path.
func sysctlOwner(path []string) owner {
	switch {
	case path[0] == "net":
		return ownerNetwork
	case len(path) == 3 && path[0] == "fs" && path[1] == "mqueue":
		return ownerIPC
	case len(path) == 2 && path[0] == "kernel" && slices.Contains(ipcSysctls, path[1]):
		return ownerIPC
	case len(path) == 2 && path[0] == "kernel" && path[1] == "domainname":
		return ownerUTS
	}
	return ownerNone
}
