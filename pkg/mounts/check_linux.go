package mounts

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// Check asks whether a path can be mounted idmapped, as a volume.
type Check struct {
	Path   string // a directory or a file
	UserNS string // path of the pod's pinned user namespace
	// Recursive asks for all mounts below Path too. An OCI runtime's mount option "idmap" leaves
	// those as they are, "ridmap" does not.
	Recursive bool
}

// CheckIDMappable returns nil when the mount can be idmapped or no user namespace is given, and an
// error that wraps ErrNotIDMappable and names the filesystem when it cannot. It idmaps a
// clone that nobody sees and drops it. Asking the kernel is the only way to know: for FUSE it depends on
// the server, for others on the kernel, and a mount that is idmapped already cannot be again.
func (m *Mounter) CheckIDMappable(ctx context.Context, c Check) error {
	if c.UserNS == "" {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("check that %s can be idmapped: %w", c.Path, err)
	}
	ns, err := openUserNS(c.UserNS)
	if err != nil {
		return err
	}
	defer ns.close()
	err = m.tryIDMap(c.Path, ns, c.Recursive)
	if c.Recursive && errors.Is(err, ErrNotIDMappable) {
		return m.blame(c.Path, c.UserNS, err)
	}
	return explain(err, c.Path)
}

func (m *Mounter) tryIDMap(path string, ns fd, recursive bool) error {
	tree, err := cloneTree(path, recursive)
	if err != nil {
		return err
	}
	defer tree.close()
	m.checks.Add(1)
	return idmap(tree, ns, 0, recursive, path)
}

// blame finds which of the mounts at and below path refuses, after refusal of all together.
func (m *Mounter) blame(path, userns string, refusal error) error {
	ns, err := openUserNS(userns)
	if err != nil {
		return explain(refusal, path)
	}
	defer ns.close()
	if err := m.tryIDMap(path, ns, false); err != nil {
		return explain(err, path)
	}
	real, err := filepath.EvalSymlinks(path) // as the mount table spells it
	if err != nil {
		return explain(refusal, path)
	}
	below, err := mountinfo.GetMounts(mountinfo.PrefixFilter(real))
	if err != nil {
		return explain(refusal, path)
	}
	for _, mount := range below {
		if !strings.HasPrefix(mount.Mountpoint, real+"/") {
			continue
		}
		var refused *IDMapError
		if errors.As(m.tryIDMap(mount.Mountpoint, ns, false), &refused) {
			refused.Path, refused.Mountpoint, refused.FSType = path, mount.Mountpoint, mount.FSType
			return refused
		}
	}
	return explain(refusal, path)
}
