package image

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/errdefs"
	"k8s.io/klog/v2"
)

// Options configure a Manager.
type Options struct {
	Store Store
	// DefaultSnapshotter serves the runtime handlers that are not in Snapshotters.
	DefaultSnapshotter string
	// Snapshotters are those of the runtime handlers, by the handler's name.
	Snapshotters map[string]string
}

// Manager is what a CRI image service needs. It is safe for concurrent use.
type Manager struct {
	opts Options
}

// New returns a manager over a store.
func New(opts Options) (*Manager, error) {
	if opts.Store == nil || opts.DefaultSnapshotter == "" {
		return nil, fmt.Errorf("image manager needs a store and a default snapshotter: %w", errdefs.ErrInvalidArgument)
	}
	opts.Snapshotters = maps.Clone(opts.Snapshotters)
	return &Manager{opts: opts}, nil
}

// Image is an image with the user that its config names.
type Image struct {
	Info
	User User
}

// Request asks for an image by the name that a client uses.
type Request struct {
	Image          string
	RuntimeHandler string
	Auth           *Auth
	Labels         map[string]string // for the snapshots
}

// Pull pulls an image and returns its id.
func (m *Manager) Pull(ctx context.Context, req Request) (string, error) {
	ref, err := Normalize(req.Image)
	if err != nil {
		return "", fmt.Errorf("pull: %w", err)
	}
	return m.opts.Store.Pull(ctx, PullRequest{
		Ref:         ref,
		Auth:        req.Auth,
		Snapshotter: m.Snapshotter(req.RuntimeHandler),
		Labels:      req.Labels,
	})
}

// List returns all images, or the one that ref names. A ref that names none gives an empty list.
func (m *Manager) List(ctx context.Context, ref string) ([]Image, error) {
	if ref != "" {
		img, err := m.Status(ctx, ref)
		if errdefs.IsNotFound(err) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		return []Image{img}, nil
	}
	infos, err := m.opts.Store.List(ctx)
	if err != nil {
		return nil, err
	}
	images := make([]Image, 0, len(infos))
	for _, info := range infos {
		images = append(images, withUser(info))
	}
	return images, nil
}

// Status finds an image by id, unique prefix of an id, tag or digest reference. One that is not there
// is an error that wraps errdefs.ErrNotFound.
func (m *Manager) Status(ctx context.Context, ref string) (Image, error) {
	if ref == "" {
		return Image{}, fmt.Errorf("image reference is empty: %w", errdefs.ErrInvalidArgument)
	}
	info, err := m.opts.Store.Get(ctx, ref)
	if err != nil {
		return Image{}, err
	}
	return withUser(info), nil
}

// Remove removes the image with all its names, by whichever of them it is called. An image that is
// not there is no error, as CRI demands.
func (m *Manager) Remove(ctx context.Context, ref string) error {
	img, err := m.Status(ctx, ref)
	if err == nil {
		err = m.opts.Store.Remove(ctx, img.ID)
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	return nil
}

// FSInfo returns the usage of each snapshotter in use. The default one's is first: kubelet reads
// no other. One of the others that cannot be asked is left out.
func (m *Manager) FSInfo(ctx context.Context) ([]Usage, error) {
	names := slices.Sorted(maps.Values(m.opts.Snapshotters))
	names = slices.Insert(names, 0, m.opts.DefaultSnapshotter)
	var usages []Usage
	seen := make(map[string]bool)
	for _, name := range names {
		if name == "" || seen[name] {
			continue
		}
		seen[name] = true
		u, err := m.opts.Store.FSUsage(ctx, name)
		if err != nil && name == m.opts.DefaultSnapshotter || ctx.Err() != nil {
			return nil, err
		}
		if err != nil {
			klog.FromContext(ctx).Error(err, "Snapshotter of a runtime handler was not summed up", "snapshotter", name)
			continue
		}
		usages = append(usages, u)
	}
	return usages, nil
}

// Snapshotter returns the snapshotter of a runtime handler. Handlers that are not known have the
// default: an image may be pulled for a handler that comes later.
func (m *Manager) Snapshotter(handler string) string {
	if name := m.opts.Snapshotters[handler]; name != "" {
		return name
	}
	return m.opts.DefaultSnapshotter
}

func withUser(info Info) Image {
	return Image{Info: info, User: ParseUser(info.Config.User)}
}
