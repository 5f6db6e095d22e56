package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/pkg/image"
)

// Images are recorded as containerd's own CRI plugin records them: under the tag, under the digest
// reference and under the image's id, each marked by a label. So a node can change to it and back.
const (
	imageLabel  = "io.cri-containerd.image"
	imageValue  = "managed"
	pinnedLabel = "io.cri-containerd.pinned"
	pinnedValue = "pinned"
)

// held is an image with the names of its records.
type held struct {
	image.Info
	names []string
	// annotations are those of the manifest.
	annotations map[string]string
}

// List returns all images that can run on this platform, whoever pulled them.
func (e *Engine) List(ctx context.Context) ([]image.Info, error) {
	all, err := e.heldImages(ctx)
	if err != nil {
		return nil, err
	}
	infos := make([]image.Info, 0, len(all))
	for _, h := range all {
		infos = append(infos, h.Info)
	}
	return infos, nil
}

// Get finds an image by id, unique prefix of an id, tag or digest reference.
func (e *Engine) Get(ctx context.Context, ref string) (image.Info, error) {
	h, err := e.find(ctx, ref)
	return h.Info, err
}

func (e *Engine) find(ctx context.Context, ref string) (held, error) {
	all, err := e.heldImages(ctx)
	if err != nil {
		return held{}, err
	}
	infos := make([]image.Info, 0, len(all))
	for _, h := range all {
		infos = append(infos, h.Info)
	}
	i, err := image.Find(infos, ref)
	if err != nil {
		return held{}, err
	}
	return all[i], nil
}

// heldImages groups the image records by image id, ordered by id.
func (e *Engine) heldImages(ctx context.Context) ([]held, error) {
	records, err := e.client.ImageService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	byID := make(map[string]*held)
	targets := make(map[digest.Digest]bool, len(records))
	for _, rec := range records {
		found, err := e.detail(ctx, rec)
		if errdefs.IsUnavailable(err) || ctx.Err() != nil {
			return nil, fmt.Errorf("list images: %w", err)
		}
		if err != nil {
			// Other things than images are kept there as well, and images of other platforms.
			klog.FromContext(ctx).V(5).Info("Left out of the list of images", "name", rec.Name, "reason", err.Error())
			continue
		}
		targets[rec.Target.Digest] = true
		addRecord(byID, rec, found)
	}
	e.details.keep(targets)
	all := sortHeld(byID)
	for i := range all {
		all[i].Pinned = all[i].Pinned || e.pins.has(all[i].RepoTags, all[i].RepoDigests)
	}
	return all, nil
}

func addRecord(byID map[string]*held, rec images.Image, found detail) {
	h := byID[found.id]
	if h == nil {
		h = &held{Info: image.Info{
			ID: found.id, Size: found.size, Config: found.spec.Config, Spec: found.spec, ChainID: found.chain,
		}}
		h.annotations = found.annotations
		byID[found.id] = h
	}
	h.names = append(h.names, rec.Name)
	h.Pinned = h.Pinned || rec.Labels[pinnedLabel] == pinnedValue
	tag, dgst := image.SplitName(rec.Name)
	if tag != "" {
		h.RepoTags = append(h.RepoTags, tag)
	}
	if dgst != "" {
		h.RepoDigests = append(h.RepoDigests, dgst)
	}
}

func sortHeld(byID map[string]*held) []held {
	all := make([]held, 0, len(byID))
	for _, h := range byID {
		slices.Sort(h.names)
		slices.Sort(h.RepoTags)
		slices.Sort(h.RepoDigests)
		all = append(all, *h)
	}
	slices.SortFunc(all, func(a, b held) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return all
}

// chainOf returns the chain id of a present image, which may be "".
func (e *Engine) chainOf(ctx context.Context, id string) (string, error) {
	if chain, ok := e.details.chainOfID(id); ok {
		return chain, nil
	}
	info, err := e.Get(ctx, id)
	return info.ChainID, err
}

// Remove drops every name of the image, and has its content collected before it returns, as far as no
// container uses it. An image that is missing is an error that wraps errdefs.ErrNotFound.
func (e *Engine) Remove(ctx context.Context, id string) error {
	if err := e.names.Lock(ctx, id); err != nil {
		return fmt.Errorf("remove image %s: %w", id, err)
	}
	defer e.names.Unlock(id)
	h, err := e.find(ctx, id)
	if err != nil {
		return fmt.Errorf("remove image %s: %w", id, err)
	}
	var errs []error
	for i, name := range h.names {
		var opts []images.DeleteOpt
		if i == len(h.names)-1 {
			opts = append(opts, images.SynchronousDelete())
		}
		if err := e.client.ImageService().Delete(ctx, name, opts...); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("remove image %s: delete name %s: %w", id, name, err))
		}
	}
	return errors.Join(errs...)
}
