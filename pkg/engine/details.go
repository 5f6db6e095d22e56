package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/usage"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
)

// detail is what follows from an image's content alone, so it never changes for one target.
type detail struct {
	id     string // digest of the config
	config imagespec.Descriptor
	spec   imagespec.Image
	chain  string // chain id of all layers, "" for an image without layers
	size   int64  // bytes of compressed content
	// annotations are those of the manifest.
	annotations map[string]string
}

// imageDetails remembers the details of every image, by the digest that its records point at.
// Without it every list would read manifest and config of each image from containerd.
type imageDetails struct {
	mu       sync.Mutex
	byTarget map[digest.Digest]detail // guarded by mu
}

func newImageDetails() *imageDetails {
	return &imageDetails{byTarget: make(map[digest.Digest]detail)}
}

func (d *imageDetails) get(target digest.Digest) (detail, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	found, ok := d.byTarget[target]
	return found, ok
}

func (d *imageDetails) put(target digest.Digest, found detail) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.byTarget[target] = found
}

// keep forgets all details but those of the given targets.
func (d *imageDetails) keep(targets map[digest.Digest]bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for target := range d.byTarget {
		if !targets[target] {
			delete(d.byTarget, target)
		}
	}
}

// chainOfID returns the chain id of an image whose details are known.
func (d *imageDetails) chainOfID(id string) (string, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, found := range d.byTarget {
		if found.id == id {
			return found.chain, true
		}
	}
	return "", false
}

// platform is the one that images are chosen for, from an index of several.
var platform = platforms.Default()

// detail returns the details of an image. Content that is missing, or none for this platform, is an
// error that wraps errdefs.ErrNotFound.
func (e *Engine) detail(ctx context.Context, img images.Image) (detail, error) {
	if found, ok := e.details.get(img.Target.Digest); ok {
		return found, nil
	}
	found, err := e.readDetail(ctx, img)
	if err != nil {
		return detail{}, fmt.Errorf("read image %s: %w", img.Name, err)
	}
	e.details.put(img.Target.Digest, found)
	return found, nil
}

func (e *Engine) readDetail(ctx context.Context, img images.Image) (detail, error) {
	cs := e.client.ContentStore()
	config, err := img.Config(ctx, cs, platform)
	if err != nil {
		return detail{}, err
	}
	blob, err := content.ReadBlob(ctx, cs, config)
	if err != nil {
		return detail{}, err
	}
	found := detail{id: config.Digest.String(), config: config}
	if err := json.Unmarshal(blob, &found.spec); err != nil {
		return detail{}, fmt.Errorf("parse config %s: %w", config.Digest, err)
	}
	if found.annotations, err = e.manifestAnnotations(ctx, img); err != nil {
		return detail{}, err
	}
	found.chain = identity.ChainID(found.spec.RootFS.DiffIDs).String()
	found.size, err = usage.CalculateImageUsage(ctx, img, cs, usage.WithManifestLimit(platform, 1), usage.WithManifestUsage())
	if err != nil {
		return detail{}, fmt.Errorf("sum up sizes: %w", err)
	}
	return found, e.checkComplete(ctx, img, found)
}

// checkComplete returns an error that wraps errdefs.ErrNotFound for an image that can be neither used
// as it is nor unpacked, such as one of which a layer was deleted: it has to be pulled again.
func (e *Engine) checkComplete(ctx context.Context, img images.Image, found detail) error {
	complete, _, _, missing, err := images.Check(ctx, e.client.ContentStore(), img.Target, platform)
	if err != nil || complete {
		return err
	}
	unpacked, err := e.unpacked(ctx, found.chain, e.opts.DefaultSnapshotter)
	if err != nil || unpacked {
		return err
	}
	return fmt.Errorf("%d of its blobs are missing, the first is %s: %w", len(missing), missing[0].Digest, errdefs.ErrNotFound)
}
