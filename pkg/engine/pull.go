package engine

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/snapshotters"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/pkg/image"
)

// Pull fetches the image that the reference names now, unpacks it and returns its id. Concurrent
// pulls of one reference into one snapshotter, by the same credentials, are one.
//
// The error wraps errdefs.ErrNotFound where no registry has the image, ErrUnauthenticated or
// ErrPermissionDenied where one refuses the credentials, and ErrFailedPrecondition where content is not
// what its digest says.
func (e *Engine) Pull(ctx context.Context, req image.PullRequest) (string, error) {
	key, err := pullKey(req)
	if err != nil {
		return "", fmt.Errorf("pull image %s: %w", req.Ref, err)
	}
	id, err := e.pulls.do(ctx, key, func(ctx context.Context) (string, error) {
		return e.pull(ctx, req)
	})
	if err != nil {
		return "", fmt.Errorf("pull image %s: %w", req.Ref, err)
	}
	return id, nil
}

// pullKey tells pulls apart. The credentials count: who has none must not get an image that
// another caller is just fetching.
func pullKey(req image.PullRequest) (string, error) {
	auth, err := json.Marshal(req.Auth)
	if err != nil {
		return "", fmt.Errorf("tell credentials apart: %w", err)
	}
	return fmt.Sprintf("%s\n%s\n%x", req.Ref, req.Snapshotter, sha256.Sum256(auth)), nil
}

func (e *Engine) pull(ctx context.Context, req image.PullRequest) (string, error) {
	logger := klog.FromContext(ctx).WithValues("image", req.Ref)
	began := time.Now()
	logger.V(2).Info("Pulling image", "snapshotter", e.snapshotter(req.Snapshotter))
	ctx, p := startProgress(klog.NewContext(ctx, logger), e.opts.PullProgressTimeout)
	defer p.stop()
	var id string
	err := e.leased(ctx, func(ctx context.Context) error {
		img, err := e.client.Pull(ctx, req.Ref, e.pullOptions(ctx, req, p)...)
		if err != nil {
			return err
		}
		found, err := e.detail(ctx, img.Metadata())
		if err != nil {
			return err
		}
		id = found.id
		return e.nameImage(ctx, img.Metadata(), id)
	})
	if err != nil {
		return "", explainPull(ctx, err)
	}
	logger.V(2).Info("Pulled image", "id", id, "bytes", p.bytes.Load(), "took", time.Since(began))
	return id, nil
}

func (e *Engine) pullOptions(ctx context.Context, req image.PullRequest, p *progress) []client.RemoteOpt {
	return []client.RemoteOpt{
		client.WithResolver(newResolver(e.registryHosts(ctx, req.Auth, p))),
		client.WithPlatformMatcher(platform),
		client.WithPullUnpack,
		client.WithPullSnapshotter(e.snapshotter(req.Snapshotter), snapshots.WithLabels(req.Labels)),
		client.WithPullLabels(imageLabels()),
		client.WithMaxConcurrentDownloads(e.opts.MaxConcurrentDownloads),
		client.WithImageHandlerWrapper(func(h images.Handler) images.Handler {
			return e.discardSpoiled(snapshotters.AppendInfoHandlerWrapper(req.Ref)(h))
		}),
		client.WithUnpackOpts([]client.UnpackOpt{client.WithUnpackDuplicationSuppressor(e.layers)}),
	}
}

// discardSpoiled deletes each download that is not what its digest says. containerd keeps what has arrived, for the next
// pull to go on from there, and that pull fails like this one until a collection has taken it away, which none does
// before containerd has stored its first blob.
func (e *Engine) discardSpoiled(fetch images.Handler) images.Handler {
	return images.HandlerFunc(func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		children, err := fetch.Handle(ctx, desc)
		if !errdefs.IsFailedPrecondition(err) {
			return children, err
		}
		ref := remotes.MakeRefKey(ctx, desc)
		if abortErr := e.client.ContentStore().Abort(ctx, ref); abortErr != nil && !errdefs.IsNotFound(abortErr) {
			klog.FromContext(ctx).Error(abortErr, "Spoiled download was not deleted: pulls fail until containerd has collected it", "ref", ref)
		}
		return children, err
	})
}
