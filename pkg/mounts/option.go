package mounts

import (
	"fmt"
	"path/filepath"
	"strings"
)

// flags are the options that the kernel's VFS understands rather than a filesystem.
type flags uint

const (
	flagReadonly flags = 1 << iota
	flagNoSUID
	flagNoDev
	flagNoExec
	flagNoAtime
	flagStrictAtime
	flagNoDirAtime
	flagNoSymfollow
	flagSync
	flagDirSync
	flagLazyTime
)

// flagOptions spells the flags as mount(8) does; clear is the option that takes one back.
var flagOptions = []struct {
	set, clear string
	flag       flags
}{
	{"ro", "rw", flagReadonly},
	{"nosuid", "suid", flagNoSUID},
	{"nodev", "dev", flagNoDev},
	{"noexec", "exec", flagNoExec},
	{"noatime", "atime", flagNoAtime},
	{"strictatime", "nostrictatime", flagStrictAtime},
	{"nodiratime", "diratime", flagNoDirAtime},
	{"nosymfollow", "symfollow", flagNoSymfollow},
	{"sync", "async", flagSync},
	{"dirsync", "", flagDirSync},
	{"lazytime", "nolazytime", flagLazyTime},
}

// add takes one option in mount(8) spelling. Options that nobody here knows are the filesystem's.
func (p *plan) add(option string) error {
	if strings.Contains(option, "{{") {
		return fmt.Errorf("template: %w", ErrUnsupportedMount)
	}
	if option == "" || p.addFlag(option) {
		return nil
	}
	key, value, hasValue := strings.Cut(option, "=")
	switch key {
	case "defaults", "relatime": // relatime is the kernel's default
		return nil
	case "bind", "rbind":
		p.kind = kindBind
		p.recursive = key == "rbind"
		return nil
	case "loop", "offset", "sizelimit":
		return fmt.Errorf("needs a loop device: %w", ErrUnsupportedMount)
	case "uidmap", "gidmap":
		return fmt.Errorf("the snapshotter would idmap it itself: %w", ErrUnsupportedMount)
	case "remount", "move", "shared", "rshared", "slave", "rslave", "private", "rprivate", "unbindable", "runbindable":
		return fmt.Errorf("changes a mount instead of making one: %w", ErrUnsupportedMount)
	}
	if strings.HasPrefix(key, "X-containerd.") {
		return fmt.Errorf("meant for containerd's mount manager: %w", ErrUnsupportedMount)
	}
	if p.fsType == "overlay" {
		if done, err := p.addLayer(key, value); done || err != nil {
			return err
		}
	}
	p.params = append(p.params, param{key: key, value: value, flag: !hasValue})
	return nil
}

// addFlag takes a VFS option, which is not empty.
func (p *plan) addFlag(option string) bool {
	for _, f := range flagOptions {
		switch option {
		case f.set:
			p.flags |= f.flag
			return true
		case f.clear:
			p.flags &^= f.flag
			return true
		}
	}
	return false
}

// addLayer takes overlay's options that name directories.
func (p *plan) addLayer(key, value string) (done bool, err error) {
	switch key {
	case "lowerdir":
		p.lower, err = splitLower(value)
	case "lowerdir+": // taken literally by the kernel
		p.lower = append(p.lower, filepath.Clean(value))
	case "upperdir":
		p.upper = filepath.Clean(unescape(value))
	case "workdir":
		p.work = filepath.Clean(unescape(value))
	case "datadir+":
		err = fmt.Errorf("data-only layers: %w", ErrUnsupportedMount)
	default:
		return false, nil
	}
	return true, err
}

// splitLower splits overlay's lowerdir at its colons, topmost layer first. A backslash takes the
// next character literally.
func splitLower(value string) ([]string, error) {
	var dirs []string
	start, escaped := 0, false
	for i := 0; i <= len(value); i++ {
		if i < len(value) && (escaped || value[i] != ':') {
			escaped = !escaped && value[i] == '\\'
			continue
		}
		if i == start { // "::" begins data-only layers, a leading or trailing colon appends to a mount
			return nil, fmt.Errorf("empty layer or data-only layers: %w", ErrUnsupportedMount)
		}
		dirs = append(dirs, filepath.Clean(unescape(value[start:i])))
		start = i + 1
	}
	return dirs, nil
}

func unescape(path string) string {
	if !strings.Contains(path, `\`) {
		return path
	}
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		if path[i] == '\\' && i+1 < len(path) {
			i++
		}
		b.WriteByte(path[i])
	}
	return b.String()
}

// unquoted strips the quotes that mount(8)'s spelling puts around an SELinux context because of
// its commas. fsconfig(2) takes values as they are.
func (o param) unquoted() string {
	if v := o.value; len(v) >= 2 && v[0] == '"' && v[len(v)-1] == '"' {
		return v[1 : len(v)-1]
	}
	return o.value
}

// String is the option as mount(2) takes it.
func (o param) String() string {
	if o.flag {
		return o.key
	}
	return o.key + "=" + o.value
}
