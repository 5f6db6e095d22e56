package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/containerd/v2/pkg/rootfs"
	"github.com/containerd/errdefs"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ReadDiff writes what a snapshot has over its parent.
func (e *Engine) ReadDiff(ctx context.Context, snapshotter, key string, w io.Writer) error {
	err := e.leased(ctx, func(ctx context.Context) error {
		desc, err := rootfs.CreateDiff(ctx, key, e.client.SnapshotService(e.snapshotter(snapshotter)), e.client.DiffService(),
			diff.WithMediaType(imagespec.MediaTypeImageLayer), diff.WithReference("userns-shim-diff-"+key))
		if err != nil {
			return err
		}
		return e.readBlob(ctx, desc, func(r io.Reader) error {
			_, err := io.Copy(w, r)
			return err
		})
	})
	if err != nil {
		return fmt.Errorf("read diff of snapshot %s: %w", key, err)
	}
	return nil
}

// ApplyDiff changes a snapshot as the diff says. It is not mounted by then.
func (e *Engine) ApplyDiff(ctx context.Context, snapshotter, key string, r io.Reader) error {
	err := e.leased(ctx, func(ctx context.Context) error {
		desc, err := e.writeBlob(ctx, "userns-shim-apply-"+key, r)
		if err != nil {
			return err
		}
		onto, err := e.client.SnapshotService(e.snapshotter(snapshotter)).Mounts(ctx, key)
		if err != nil {
			return err
		}
		_, err = e.client.DiffService().Apply(ctx, desc, onto)
		return err
	})
	if err != nil {
		return fmt.Errorf("apply diff to snapshot %s: %w", key, err)
	}
	return nil
}

// ReadLayers passes on the layers of a present image in their order. It ends at the first error of each.
func (e *Engine) ReadLayers(ctx context.Context, imageID string, each func(layer io.Reader) error) error {
	h, err := e.find(ctx, imageID)
	if err != nil {
		return fmt.Errorf("read layers of image %s: %w", imageID, err)
	}
	img, err := e.client.ImageService().Get(ctx, h.names[0])
	if err != nil {
		return fmt.Errorf("read layers of image %s: %w", imageID, err)
	}
	manifest, err := images.Manifest(ctx, e.client.ContentStore(), img.Target, platform)
	if err != nil {
		return fmt.Errorf("read layers of image %s: %w", imageID, err)
	}
	for _, layer := range manifest.Layers {
		err := e.readBlob(ctx, layer, func(r io.Reader) error {
			plain, err := compression.DecompressStream(r)
			if err != nil {
				return err
			}
			return errors.Join(each(plain), plain.Close())
		})
		if err != nil {
			return fmt.Errorf("read layer %s of image %s: %w", layer.Digest, imageID, err)
		}
	}
	return nil
}

func (e *Engine) readBlob(ctx context.Context, desc imagespec.Descriptor, fn func(io.Reader) error) error {
	ra, err := e.client.ContentStore().ReaderAt(ctx, desc)
	if err != nil {
		return err
	}
	return errors.Join(fn(content.NewReader(ra)), ra.Close())
}

// writeBlob stores an uncompressed layer.
func (e *Engine) writeBlob(ctx context.Context, ref string, r io.Reader) (desc imagespec.Descriptor, err error) {
	w, err := content.OpenWriter(ctx, e.client.ContentStore(), content.WithRef(ref))
	if err != nil {
		return desc, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if err := w.Truncate(0); err != nil {
		return desc, err
	}
	size, err := io.Copy(w, r)
	if err != nil {
		return desc, err
	}
	desc = imagespec.Descriptor{MediaType: imagespec.MediaTypeImageLayer, Digest: w.Digest(), Size: size}
	// With a digest, containerd (2.4) answers that a present blob exists before it adds it to the lease: then it is
	// as likely to be collected as before.
	if err := w.Commit(ctx, size, ""); err != nil && !errdefs.IsAlreadyExists(err) {
		return desc, err
	}
	return desc, nil
}

// manifestAnnotations reads the annotations of an image's manifest, to which those of an index add.
func (e *Engine) manifestAnnotations(ctx context.Context, img images.Image) (map[string]string, error) {
	cs := e.client.ContentStore()
	manifest, err := images.Manifest(ctx, cs, img.Target, platform)
	if err != nil {
		return nil, err
	}
	if !images.IsIndexType(img.Target.MediaType) {
		return manifest.Annotations, nil
	}
	blob, err := content.ReadBlob(ctx, cs, img.Target)
	if err != nil {
		return nil, err
	}
	var index imagespec.Index
	if err := json.Unmarshal(blob, &index); err != nil {
		return nil, fmt.Errorf("parse index %s: %w", img.Target.Digest, err)
	}
	all := map[string]string{}
	for _, from := range []map[string]string{index.Annotations, manifest.Annotations} {
		maps.Copy(all, from)
	}
	return all, nil
}
