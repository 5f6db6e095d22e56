package image

import (
	"context"
	"time"

	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Auth is the client's credential for a registry; at most one form is used, in the order
// registry token, identity token, username and password (also from Auth, base64 "user:password").
type Auth struct {
	Username, Password, Auth     string
	ServerAddress                string
	IdentityToken, RegistryToken string
}

// PullRequest asks for an image. Ref is normalised already ("docker.io/library/busybox:latest").
type PullRequest struct {
	Ref         string
	Auth        *Auth
	Snapshotter string
	Labels      map[string]string // for the snapshots, such as the pod's, informational
}

// Info is one image as the store has it.
type Info struct {
	ID          string // sha256:<digest of the config>
	RepoTags    []string
	RepoDigests []string
	Size        int64 // bytes of compressed content and metadata
	Config      imagespec.ImageConfig
	Spec        imagespec.Image // whole config, for verbose status
	ChainID     string
	Pinned      bool
}

// Usage is what a snapshotter's filesystem holds.
type Usage struct {
	Mountpoint string
	Bytes      uint64
	Inodes     uint64
	At         time.Time
}

// Store is the image store; engine implements it over containerd. A missing image is an error
// that wraps errdefs.ErrNotFound.
type Store interface {
	// Pull fetches and unpacks, and returns the image's id. Concurrent pulls of one ref share one fetch.
	Pull(ctx context.Context, req PullRequest) (id string, err error)
	List(ctx context.Context) ([]Info, error)
	// Get finds by id, unique id prefix, tag or digest reference.
	Get(ctx context.Context, ref string) (Info, error)
	// Remove drops every name of the image id; content that nothing refers to is collected.
	Remove(ctx context.Context, id string) error
	FSUsage(ctx context.Context, snapshotter string) (Usage, error)
}
