package mounts

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// overlayDirs are the directories of one overlay, opened. Lower ones are opened through the pod's idmapped
// clones, where the pod has a user namespace.
type overlayDirs struct {
	layers []layer // topmost first, as lower
	lower  fds
	upper  fd // noFD for a read-only view
	work   fd
	clones map[place]*clone // empty without a user namespace
}

func (d *overlayDirs) close() {
	d.lower.close()
	d.upper.close()
	d.work.close()
	for _, c := range d.clones {
		c.release()
	}
}

// overlay builds an overlay.
func (m *Mounter) overlay(ctx context.Context, req Request, p plan) (fd, error) {
	dirs, err := m.openDirs(ctx, req, p)
	if err != nil {
		return noFD, err
	}
	defer dirs.close()
	if err := ctx.Err(); err != nil {
		return noFD, err
	}
	if req.UserNS != "" {
		if err := dirs.own(req.Mapping, p); err != nil {
			return noFD, err
		}
	}
	if m.overlayWay(ctx) == WayStaged {
		return m.stage.overlay(p, dirs)
	}
	return dirs.mount(p)
}

func (m *Mounter) openDirs(ctx context.Context, req Request, p plan) (*overlayDirs, error) {
	lower, err := locate(p.lower...)
	if err != nil {
		return nil, err
	}
	var anchors []place
	if p.upper != "" {
		if anchors, err = locate(p.upper, p.work); err != nil {
			return nil, err
		}
	}
	d := &overlayDirs{layers: layout(lower, anchors), upper: noFD, work: noFD, clones: make(map[place]*clone)}
	if err := m.openLower(ctx, req, p, d); err != nil {
		d.close()
		return nil, err
	}
	if p.upper == "" {
		return d, nil
	}
	if d.upper, err = openDir(p.upper); err == nil {
		d.work, err = openDir(p.work)
	}
	if err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func (m *Mounter) openLower(ctx context.Context, req Request, p plan, d *overlayDirs) error {
	for i, l := range d.layers {
		var (
			dir fd
			err error
		)
		if req.UserNS == "" {
			dir, err = openDir(p.lower[i])
		} else {
			dir, err = m.openThroughClone(ctx, req, l, d.clones)
		}
		if err != nil {
			return err
		}
		d.lower = append(d.lower, dir)
	}
	return nil
}

// openThroughClone opens a layer in the pod's clone, and puts a clone that it needed first into
// clones.
func (m *Mounter) openThroughClone(ctx context.Context, req Request, l layer, clones map[place]*clone) (fd, error) {
	c := clones[l.root]
	if c == nil {
		owner, err := m.pod(req.Pod)
		if err != nil {
			return noFD, err
		}
		if c, err = owner.clone(ctx, l.root, req.UserNS); err != nil {
			return noFD, err
		}
		clones[l.root] = c
	}
	dir, err := openBelow(c.tree, l.rel)
	if err != nil {
		return noFD, fmt.Errorf("open layer below the clone of %s: %w", l.root.path, err)
	}
	return dir, nil
}

// own checks that the clone has the mapping that it should have, and gives the upper directory the owner of
// the image's root directory, unless it has one of the pod's already.
func (d *overlayDirs) own(m Mapping, p plan) error {
	disk, err := stat(cwd, p.lower[0], 0)
	if err != nil {
		return err
	}
	seen, err := stat(d.lower[0], "", 0)
	if err != nil {
		return err
	}
	uid, err := shiftedOwner(disk.uid, seen.uid, m)
	if err != nil {
		return fmt.Errorf("user of %s: %w", p.lower[0], err)
	}
	gid, err := shiftedOwner(disk.gid, seen.gid, m)
	if err != nil {
		return fmt.Errorf("group of %s: %w", p.lower[0], err)
	}
	if d.upper == noFD {
		return nil
	}
	have, err := stat(d.upper, "", 0)
	if err != nil {
		return err
	}
	const keep = -1
	newUID, newGID := keep, keep
	if needsOwner(have.uid, disk.uid, m) {
		newUID = int(uid)
	}
	if needsOwner(have.gid, disk.gid, m) {
		newGID = int(gid)
	}
	if newUID == keep && newGID == keep {
		return nil
	}
	if err := unix.Fchownat(int(d.upper), "", newUID, newGID, unix.AT_EMPTY_PATH); err != nil {
		return &os.PathError{Op: "chown", Path: p.upper, Err: err}
	}
	return nil
}

// mount makes the overlay of detached layers. Upper and work directory are given by descriptor
// too, because a path may not be longer than 255 bytes here.
func (d *overlayDirs) mount(p plan) (fd, error) {
	fs, err := openFS("overlay")
	if err != nil {
		return noFD, err
	}
	defer fs.close()
	for _, dir := range d.lower {
		if err := fs.setDir("lowerdir+", dir); err != nil {
			return noFD, err
		}
	}
	if d.upper != noFD {
		if err := fs.setDir("upperdir", d.upper); err != nil {
			return noFD, err
		}
		if err := fs.setDir("workdir", d.work); err != nil {
			return noFD, err
		}
	}
	if err := p.configure(fs); err != nil {
		return noFD, err
	}
	return fs.mount(p.attrs())
}
