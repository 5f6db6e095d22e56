package engine_test

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"sync"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit"
)

// A diff is applied whose blob is there already and nobody's, as a checkpoint leaves it, while garbage is collected
// all the time.
func TestDiffIsAppliedWhileGarbageIsCollected(t *testing.T) {
	testkit.RequireRoot(t)
	l := newLab(t)
	image := l.pull(labimage.Demo)
	client, err := containerd.New(l.containerd.Address, containerd.WithDefaultNamespace(labnode.Namespace))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	stop, collector := make(chan struct{}), sync.WaitGroup{}
	collector.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				l.collect()
			}
		}
	})
	defer func() { close(stop); collector.Wait() }()
	diff := oneFileTar(t)
	for range 30 {
		b := l.prepareBox(image, "")
		r := &writtenMeanwhile{Reader: bytes.NewReader(diff), t: t, store: client.ContentStore(), blob: diff}
		if err := l.ApplyDiff(t.Context(), "", b.id, r); err != nil {
			t.Fatal(err)
		}
	}
}

// writtenMeanwhile is a blob that another client stores before its end is read.
type writtenMeanwhile struct {
	io.Reader
	t     *testing.T
	store content.Store
	blob  []byte
}

func (w *writtenMeanwhile) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	if err == io.EOF {
		desc := imagespec.Descriptor{Digest: digest.FromBytes(w.blob), Size: int64(len(w.blob))}
		ctx := namespaces.WithNamespace(context.Background(), labnode.Namespace)
		if werr := content.WriteBlob(ctx, w.store, "another", bytes.NewReader(w.blob), desc); werr != nil && !errdefs.IsAlreadyExists(werr) {
			w.t.Error(werr)
		}
	}
	return n, err
}

func oneFileTar(t *testing.T) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.WriteHeader(&tar.Header{Name: "changed", Mode: 0o600, Size: 3}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("yes")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}
