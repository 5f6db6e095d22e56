package labimage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Registry serves images over plain HTTP on loopback. It is safe for concurrent use.
type Registry struct {
	addr    string // where clients pull
	private string // where Push uploads: always reachable from this process
	servers []*http.Server
	done    sync.WaitGroup

	mu   sync.Mutex
	hits map[string]int // requests by method and path
}

// NewRegistry starts a registry. Clients reach it at listener, which may have been made in another
// network namespace; nil means a free port of this process's own loopback.
// The registry owns the listener. Close stops it.
func NewRegistry(listener net.Listener) (*Registry, error) {
	r := &Registry{hits: map[string]int{}}
	private, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the lab registry: %w", err)
	}
	r.private = private.Addr().String()
	r.addr = r.private
	handler := r.count(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	r.serve(private, handler)
	if listener != nil {
		r.addr = listener.Addr().String()
		r.serve(listener, handler)
	}
	return r, nil
}

func (r *Registry) serve(listener net.Listener, handler http.Handler) {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	r.servers = append(r.servers, server)
	r.done.Go(func() {
		// The only end that a test or a demo has is Close, which gives ErrServerClosed.
		_ = server.Serve(listener)
	})
}

func (r *Registry) count(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		r.hits[req.Method+" "+req.URL.Path]++
		r.mu.Unlock()
		next.ServeHTTP(w, req)
	})
}

// Addr is the host:port at which clients pull.
func (r *Registry) Addr() string { return r.addr }

// Ref is the full reference of an image that was pushed as repoTag ("demo:latest").
func (r *Registry) Ref(repoTag string) string { return r.addr + "/" + repoTag }

// Requests counts the requests seen so far for a method and path, such as "GET /v2/demo/manifests/latest".
func (r *Registry) Requests(methodAndPath string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.hits[methodAndPath]
}

// RequestsBelow counts those whose method and path begin so, such as "GET /v2/demo/blobs/".
func (r *Registry) RequestsBelow(prefix string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	sum := 0
	for methodAndPath, hits := range r.hits {
		if strings.HasPrefix(methodAndPath, prefix) {
			sum += hits
		}
	}
	return sum
}

// Push stores an image under repoTag ("demo:latest") and returns the digest of its manifest.
func (r *Registry) Push(ctx context.Context, repoTag string, img v1.Image) (string, error) {
	ref, err := r.pushRef(repoTag)
	if err != nil {
		return "", err
	}
	if err := remote.Write(ref, img, remote.WithContext(ctx)); err != nil {
		return "", fmt.Errorf("push image %s: %w", repoTag, err)
	}
	return digestOf(repoTag, img.Digest)
}

// PushIndex stores a multi-platform index under repoTag and returns its digest.
func (r *Registry) PushIndex(ctx context.Context, repoTag string, index v1.ImageIndex) (string, error) {
	ref, err := r.pushRef(repoTag)
	if err != nil {
		return "", err
	}
	if err := remote.WriteIndex(ref, index, remote.WithContext(ctx)); err != nil {
		return "", fmt.Errorf("push index %s: %w", repoTag, err)
	}
	return digestOf(repoTag, index.Digest)
}

func (r *Registry) pushRef(repoTag string) (name.Reference, error) {
	ref, err := name.ParseReference(r.private+"/"+repoTag, name.Insecure)
	if err != nil {
		return nil, fmt.Errorf("parse image name %s: %w", repoTag, err)
	}
	return ref, nil
}

func digestOf(repoTag string, digest func() (v1.Hash, error)) (string, error) {
	hash, err := digest()
	if err != nil {
		return "", fmt.Errorf("digest of image %s: %w", repoTag, err)
	}
	return hash.String(), nil
}

// Close stops serving and waits until nothing runs any more.
func (r *Registry) Close() error {
	var errs []error
	for _, server := range r.servers {
		errs = append(errs, server.Close())
	}
	r.done.Wait()
	return errors.Join(errs...)
}
