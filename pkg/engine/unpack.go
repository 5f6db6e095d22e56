package engine

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"

	"github.com/userns-shim/userns-shim/pkg/container"
)

// ResolveImage finds a present image, and unpacks it where the snapshotter has not got it yet.
func (e *Engine) ResolveImage(ctx context.Context, ref, snapshotter string) (container.Image, error) {
	h, err := e.find(ctx, ref)
	if err != nil {
		return container.Image{}, fmt.Errorf("resolve image %q: %w", ref, err)
	}
	img := container.Image{
		ID: h.ID, Ref: h.ID, Name: h.names[0], Size: h.Size, Config: h.Config,
		RepoTags: h.RepoTags, RepoDigests: h.RepoDigests, Annotations: h.annotations,
	}
	if len(h.RepoDigests) > 0 {
		img.Ref, img.Name = h.RepoDigests[0], h.RepoDigests[0]
	}
	if len(h.RepoTags) > 0 {
		img.Name = h.RepoTags[0]
	}
	if err := e.ensureUnpacked(ctx, h, e.snapshotter(snapshotter)); err != nil {
		return container.Image{}, fmt.Errorf("resolve image %q: %w", ref, err)
	}
	return img, nil
}

// unpacked says whether the snapshotter has the layers of a chain id.
func (e *Engine) unpacked(ctx context.Context, chain, snapshotter string) (bool, error) {
	if chain == "" {
		return true, nil
	}
	_, err := e.client.SnapshotService(snapshotter).Stat(ctx, chain)
	if err == nil || errdefs.IsNotFound(err) {
		return err == nil, nil
	}
	return false, fmt.Errorf("look for snapshot %s: %w", chain, err)
}

func (e *Engine) ensureUnpacked(ctx context.Context, h held, snapshotter string) error {
	done, err := e.unpacked(ctx, h.ChainID, snapshotter)
	if err != nil || done {
		return err
	}
	key := unpackKey(snapshotter, h.ChainID)
	if err := e.layers.Lock(ctx, key); err != nil {
		return err
	}
	defer e.layers.Unlock(key)
	if done, err := e.unpacked(ctx, h.ChainID, snapshotter); err != nil || done {
		return err
	}
	rec, err := e.client.ImageService().Get(ctx, h.names[0])
	if err != nil {
		return err
	}
	return e.leased(ctx, func(ctx context.Context) error {
		img := client.NewImageWithPlatform(e.client, rec, platform)
		if err := img.Unpack(ctx, snapshotter); err != nil {
			return fmt.Errorf("unpack into snapshotter %s: %w", snapshotter, explainFull(err))
		}
		return nil
	})
}

func unpackKey(snapshotter, chain string) string { return "image:" + snapshotter + "/" + chain }

// leased calls f with a lease that holds everything that f makes. After an error it has what f
// left collected before it returns, so that nothing half-made stays, and a corrupt download
// is not resumed by the next pull.
func (e *Engine) leased(ctx context.Context, f func(context.Context) error) error {
	lease, err := e.client.LeasesService().Create(ctx, leases.WithRandomID(), leases.WithExpiration(leaseTime))
	if err != nil {
		return fmt.Errorf("create lease: %w", err)
	}
	err = f(leases.WithLease(ctx, lease.ID))
	var opts []leases.DeleteOpt
	if err != nil {
		opts = append(opts, leases.SynchronousDelete)
	}
	ctx, cancel := cleanup(ctx)
	defer cancel()
	if derr := e.client.LeasesService().Delete(ctx, lease, opts...); derr != nil && err == nil {
		return fmt.Errorf("delete lease %s: %w", lease.ID, derr)
	}
	return err
}
