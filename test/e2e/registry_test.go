package e2e

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	"google.golang.org/grpc/metadata"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// front is a server on the node's loopback, before the node's registry.
type front struct {
	*httptest.Server
	Host string // 127.0.0.1:port

	mu   sync.Mutex
	seen []string // method and path of each request
}

// wrapper changes what a registry answers.
type wrapper func(next http.Handler) http.Handler

// newFront starts a front that speaks plain HTTP, or TLS where a configuration is given. There is no hosts.toml
// for it: its name is that of a registry on loopback.
func newFront(t *testing.T, n *nodetest.Node, secure *tls.Config, wraps ...wrapper) *front {
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

// isBlob says whether a request is for a blob, config or layer.
func isBlob(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/")
}

// spoil changes the last byte of the answers to some requests.
func spoil(which func(*http.Request) bool) wrapper {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet || !which(r) {
				next.ServeHTTP(w, r)
				return
			}
			answer := httptest.NewRecorder()
			next.ServeHTTP(answer, r)
			body := answer.Body.Bytes()
			if len(body) > 0 {
				body[len(body)-1] ^= 1
			}
			for key, values := range answer.Header() {
				w.Header()[key] = values
			}
			w.WriteHeader(answer.Code)
			_, _ = w.Write(body)
		})
	}
}

// requireBasic lets in who has these credentials.
func requireBasic(user, password string) wrapper {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if u, p, _ := r.BasicAuth(); u != user || p != password {
				w.Header().Set("WWW-Authenticate", `Basic realm="lab"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// requireToken lets in who has the token "granted", and gives it to me:secret and for the identity token "identity".
func requireToken(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			user, password, _ := r.BasicAuth()
			if r.FormValue("refresh_token") != "identity" && (user != "me" || password != "secret") &&
				(r.FormValue("username") != "me" || r.FormValue("password") != "secret") {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			_, _ = io.WriteString(w, `{"token":"granted","access_token":"granted","expires_in":300}`)
			return
		}
		if r.Header.Get("Authorization") != "Bearer granted" {
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="lab"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
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
	t.Cleanup(func() {
		if _, err := n.Images.RemoveImage(context.Background(), &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: id}}); err != nil {
			t.Error(err)
		}
	})
	return id
}

// stored names the blobs, downloads, snapshots and leases that containerd holds.
func stored(t *testing.T, n *nodetest.Node) (things []string) {
	t.Helper()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "containerd-namespace", labnode.Namespace)
	content := contentapi.NewContentClient(n.Engine)
	blobs, err := content.List(ctx, &contentapi.ListContentRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for page, err := blobs.Recv(); err == nil; page, err = blobs.Recv() {
		for _, blob := range page.GetInfo() {
			things = append(things, "blob "+blob.GetDigest())
		}
	}
	downloads, err := content.ListStatuses(ctx, &contentapi.ListStatusesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range downloads.GetStatuses() {
		things = append(things, "download "+d.GetRef())
	}
	leases, err := leasesapi.NewLeasesClient(n.Engine).List(ctx, &leasesapi.ListRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, lease := range leases.GetLeases() {
		things = append(things, "lease "+lease.GetID())
	}
	for _, name := range snapshotsOf(t, n, "overlayfs") {
		things = append(things, "snapshot "+name)
	}
	return things
}
