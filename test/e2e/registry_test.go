package e2e

import (
	"context"
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
	"github.com/userns-shim/userns-shim/internal/testkit/registrytest"
)

// front is a server on the node's loopback, before the node's registry.
type front struct {
	*httptest.Server
	Host string // 127.0.0.1:port

	mu   sync.Mutex
	seen []string // method and path of each request
}

// newFront starts a front that speaks plain HTTP, or TLS where a configuration is given. There is no hosts.toml
// for it: its name is that of a registry on loopback.
func newFront(t *testing.T, n *nodetest.Node, secure *tls.Config, wraps ...registrytest.Wrapper) *front {
	t.Helper()
	listener, err := n.World.Listen()
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: n.Registry.Addr()})
	proxy.Transport = &http.Transport{DialContext: n.World.Dial, DisableKeepAlives: true}
	f := &front{Host: listener.Addr().String()}
	var handler http.Handler = proxy
	for _, wrap := range wraps {
		handler = wrap(handler)
	}
	f.Server = httptest.NewUnstartedServer(f.record(handler))
	if err := f.Listener.Close(); err != nil {
		t.Fatal(err)
	}
	f.Listener = listener
	if secure == nil {
		f.Start()
	} else {
		f.TLS = secure
		f.StartTLS()
	}
	t.Cleanup(f.Close)
	return f
}

func (f *front) record(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.seen = append(f.seen, r.Method+" "+r.URL.Path)
		f.mu.Unlock()
		next.ServeHTTP(w, r)
	})
}

// requests counts those that begin with a method and have a part in their path.
func (f *front) requests(method, part string) (count int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, line := range f.seen {
		if strings.HasPrefix(line, method+" ") && strings.Contains(line, part) {
			count++
		}
	}
	return count
}

// writeHosts writes the hosts.toml of a registry until the test ends.
func writeHosts(t *testing.T, n *nodetest.Node, registry, text string) {
	t.Helper()
	dir := filepath.Join(n.CertsDir, registry)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// smallImage is an image of one small layer, which differs from others by its text.
func smallImage(text string) labimage.Spec {
	return labimage.Spec{Layers: []labimage.Layer{{labimage.Text("text", text)}}, Cmd: []string{"true"}}
}

// tryPull pulls an image and returns its id.
func tryPull(ctx context.Context, n *nodetest.Node, ref string, auth *runtimeapi.AuthConfig) (string, error) {
	resp, err := n.Images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: ref}, Auth: auth})
	return resp.GetImageRef(), err
}

// pulled pulls an image, which is removed when the test ends, and returns its id.
func pulled(t *testing.T, n *nodetest.Node, ref string) string {
	t.Helper()
	id, err := tryPull(t.Context(), n, ref, nil)
	if err != nil {
		t.Fatalf("pull %s: %v", ref, err)
	}
	t.Cleanup(func() { removeImage(t, n, id) })
	return id
}

// stored names the blobs, downloads, leases and snapshots that containerd holds.
func stored(t *testing.T, n *nodetest.Node) []string {
	t.Helper()
	return nodetest.Stored(t, n.Engine)
}
