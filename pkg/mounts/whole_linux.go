package mounts

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// bind builds a bind mount, idmapped as a whole: ids on disk stay unshifted.
func (m *Mounter) bind(ctx context.Context, req Request, p plan) (fd, error) {
	tree, err := cloneTree(p.source, p.recursive)
	if err != nil {
		return noFD, err
	}
	err = m.idmapWhole(ctx, tree, req, p)
	if err == nil {
		return tree, nil
	}
	tree.close()
	if p.recursive && errors.Is(err, ErrNotIDMappable) {
		return noFD, m.blame(p.source, req.UserNS, err)
	}
	return noFD, explain(err, p.source)
}

// idmapWhole gives a clone its attributes and, in a user namespace, its idmap, in one call.
func (m *Mounter) idmapWhole(ctx context.Context, tree fd, req Request, p plan) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	attrs := p.attrs()
	if req.UserNS == "" {
		if attrs == 0 {
			return nil
		}
		if err := setattr(tree, p.recursive, &unix.MountAttr{Attr_set: attrs}); err != nil {
			return fmt.Errorf("set attributes of the clone of %s: %w", p.source, err)
		}
		return nil
	}
	ns, err := openUserNS(req.UserNS)
	if err != nil {
		return err
	}
	defer ns.close()
	if err := idmap(tree, ns, attrs, p.recursive, p.source); err != nil {
		return err
	}
	m.idmaps.Add(1)
	return nil
}

// filesystem builds a mount of a filesystem of its own, idmapped as a whole.
func (m *Mounter) filesystem(ctx context.Context, req Request, p plan) (fd, error) {
	fs, err := openFS(p.fsType)
	if err != nil {
		return noFD, err
	}
	defer fs.close()
	if err := p.configure(fs); err != nil {
		return noFD, err
	}
	root, err := fs.mount(p.attrs())
	if err != nil {
		return noFD, err
	}
	if req.UserNS == "" {
		return root, nil
	}
	p.flags, p.readonly = 0, false // set already
	if err := m.idmapWhole(ctx, root, req, p); err != nil {
		root.close()
		var refused *IDMapError
		if errors.As(err, &refused) { // mounted nowhere yet, so there is no mountpoint to look up
			refused.FSType, refused.Mountpoint = p.fsType, req.Target
		}
		return noFD, err
	}
	return root, nil
}
