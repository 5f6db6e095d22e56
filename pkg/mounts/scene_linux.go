package mounts

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// scene is what one overlay needs in the stage: a tmpfs of its own, attached under name. In it
// symbolic links give every layer a short name, because mount(2) takes all options in one page: the names of
// 127 layers are 400 bytes, their paths would be several thousand.
type scene struct {
	name  string
	tmpfs fd
	plain map[place]plainClone // clones that are not idmapped, attached in the scene itself
	links []string             // what the links 0, 1, … point to, topmost layer first
	upper string               // what "u" points to, empty without
	work  string               // what "w" points to
}

// plainClone is a clone that is not idmapped: of the upper directory's surroundings, and of the layers' for a pod
// without a user namespace. The stage sees nothing of the host's own mounts.
type plainClone struct {
	name string
	tree fd
}

func (s *scene) close() {
	s.tmpfs.close()
	for _, c := range s.plain {
		c.tree.close()
	}
}

// overlay makes an overlay in the stage and returns it detached.
func (s *stage) overlay(p plan, d *overlayDirs) (fd, error) {
	sc := &scene{name: s.name("o"), tmpfs: noFD, plain: make(map[place]plainClone)}
	defer sc.close()
	if err := sc.prepare(p, d); err != nil {
		return noFD, err
	}
	root := noFD
	err := s.run(func() (err error) {
		if err := attachNew(sc.tmpfs, sc.name); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.chdir(), detachName(sc.name)) }()
		if err := sc.build(); err != nil {
			return err
		}
		root, err = sc.mount(p)
		return err
	})
	if err != nil {
		root.close()
		return noFD, err
	}
	return root, nil
}

// prepare makes in the host's mount namespace what can be made only there.
func (s *scene) prepare(p plan, d *overlayDirs) (err error) {
	if s.tmpfs, err = newTmpfs(); err != nil {
		return err
	}
	s.links = make([]string, len(d.layers))
	for i, l := range d.layers {
		if c := d.clones[l.root]; c != nil {
			s.links[i] = "../" + c.name + "/" + l.rel
		} else if s.links[i], err = s.link(l); err != nil {
			return err
		}
	}
	if p.upper == "" {
		return nil
	}
	places, err := locate(p.upper, p.work)
	if err != nil {
		return err
	}
	writable := layout(places, nil) // one clone for both, or overlay says that they are on different mounts
	if s.upper, err = s.link(writable[0]); err != nil {
		return err
	}
	s.work, err = s.link(writable[1])
	return err
}

// link returns what a link to l has to point to, and clones l's root for that.
func (s *scene) link(l layer) (string, error) {
	c, ok := s.plain[l.root]
	if !ok {
		tree, err := cloneTree(l.root.path, false)
		if err != nil {
			return "", err
		}
		c = plainClone{name: "p" + strconv.Itoa(len(s.plain)), tree: tree}
		s.plain[l.root] = c
	}
	return c.name + "/" + l.rel, nil
}

// build furnishes the scene, on a thread in the stage, and leaves the thread in it.
func (s *scene) build() error {
	if err := unix.Chdir(s.name); err != nil {
		return &os.PathError{Op: "chdir", Path: s.name, Err: err}
	}
	for _, c := range s.plain {
		if err := attachNew(c.tree, c.name); err != nil {
			return err
		}
	}
	links := map[string]string{}
	for i, to := range s.links {
		links[strconv.Itoa(i)] = to
	}
	if s.upper != "" {
		links["u"], links["w"] = s.upper, s.work
	}
	for name, to := range links {
		if err := unix.Symlink(to, name); err != nil {
			return &os.LinkError{Op: "symlink", Old: to, New: name, Err: err}
		}
	}
	if err := unix.Mkdir("m", 0o700); err != nil {
		return &os.PathError{Op: "mkdir", Path: "m", Err: err}
	}
	return nil
}

// options returns the overlay's options for mount(2).
func (s *scene) options(p plan) (string, error) {
	names := make([]string, len(s.links))
	for i := range s.links {
		names[i] = strconv.Itoa(i)
	}
	options := []string{"lowerdir=" + strings.Join(names, ":")}
	if s.upper != "" {
		options = append(options, "upperdir=u", "workdir=w")
	}
	for _, o := range p.params {
		options = append(options, o.String())
	}
	joined := strings.Join(options, ",")
	if len(joined) >= os.Getpagesize() {
		return "", fmt.Errorf("overlay options of %d bytes: mount(2) takes less than a page", len(joined))
	}
	return joined, nil
}

// mount mounts the overlay in the scene and returns a detached clone of it, which outlives the scene.
func (s *scene) mount(p plan) (fd, error) {
	options, err := s.options(p)
	if err != nil {
		return noFD, err
	}
	if err := unix.Mount(p.source, "m", "overlay", p.mountFlags(), options); err != nil {
		return noFD, fmt.Errorf("mount overlay with options %q: %w", options, err)
	}
	if p.readonly { // the mount alone; MS_RDONLY above would have made the filesystem read-only as well
		flags := p.mountFlags() | unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY
		if err := unix.Mount("", "m", "", flags, ""); err != nil {
			return noFD, fmt.Errorf("make overlay read-only: %w", err)
		}
	}
	return cloneTree("m", false)
}
