package cri

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	"github.com/userns-shim/userns-shim/pkg/image"
)

// fuzzImages is the most that a world keeps: pulls beyond it are refused as a registry does.
const fuzzImages = 16

// Pull is image.Store's. Every well-formed name exists.
func (e *fuzzEngine) Pull(_ context.Context, req image.PullRequest) (string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	id := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(req.Ref)))
	if i := slices.IndexFunc(e.images, func(img image.Info) bool { return img.ID == id }); i >= 0 {
		return id, nil
	}
	if len(e.images) == fuzzImages {
		return "", fmt.Errorf("pull %s: %w", req.Ref, errdefs.ErrNotFound)
	}
	e.addImage(req.Ref, id)
	return id, nil
}

// List is image.Store's.
func (e *fuzzEngine) List(context.Context) ([]image.Info, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.images), nil
}

// Get is image.Store's.
func (e *fuzzEngine) Get(_ context.Context, ref string) (image.Info, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	i, err := image.Find(e.images, ref)
	if err != nil {
		return image.Info{}, err
	}
	return e.images[i], nil
}

// Remove is image.Store's.
func (e *fuzzEngine) Remove(_ context.Context, id string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.images = slices.DeleteFunc(e.images, func(img image.Info) bool { return img.ID == id })
	return nil
}

// FSUsage is image.Store's.
func (e *fuzzEngine) FSUsage(context.Context, string) (image.Usage, error) {
	return image.Usage{Mountpoint: "/", Bytes: 1, Inodes: 1, At: time.Now()}, nil
}

// resetImages leaves the image that every world begins with.
func (e *fuzzEngine) resetImages() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.images = nil
	e.addImage(fuzzImage, "sha256:"+fmt.Sprintf("%064d", 1))
}
