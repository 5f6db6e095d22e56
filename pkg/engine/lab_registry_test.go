package engine_test

import (
	"context"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
)

// labRegistry is a loopback registry to which images are pushed as tests need them.
type labRegistry struct {
	*labimage.Registry
	CertsDir string // hosts.toml directories that lead to it
}

func newLabRegistry(t testing.TB) *labRegistry {
	t.Helper()
	registry, err := labimage.NewRegistry(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := registry.Close(); err != nil {
			t.Errorf("close registry: %v", err)
		}
	})
	r := &labRegistry{Registry: registry, CertsDir: t.TempDir()}
	if err := labimage.WriteHosts(r.CertsDir, registry.Addr(), registry.Addr()); err != nil {
		t.Fatal(err)
	}
	return r
}

// push pushes an image of the catalogue and returns the digest of its manifest.
func (r *labRegistry) push(t testing.TB, name string) string {
	t.Helper()
	digest, err := r.pushOne(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

func (r *labRegistry) pushOne(ctx context.Context, name string) (string, error) {
	box, err := theBox()
	if err != nil {
		return "", err
	}
	if specs, ok := labimage.Indexes(box)[name]; ok {
		index, err := labimage.BuildIndex(specs)
		if err != nil {
			return "", err
		}
		return r.PushIndex(ctx, name, index)
	}
	img, err := builtImages.get(name, labimage.Catalogue(box)[name])
	if err != nil {
		return "", err
	}
	return r.Push(ctx, name, img)
}

// theBox is found once, and images are built once: all tests have the same.
var (
	theBox      = sync.OnceValues(func() (labimage.Box, error) { return labimage.FindBox(context.Background()) })
	builtImages = &imageShelf{images: make(map[string]v1.Image)}
)

type imageShelf struct {
	mu     sync.Mutex
	images map[string]v1.Image
}

func (s *imageShelf) get(name string, spec labimage.Spec) (v1.Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if img, ok := s.images[name]; ok {
		return img, nil
	}
	img, err := labimage.Build(spec)
	if err == nil {
		s.images[name] = img
	}
	return img, err
}
