package engine_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-containerregistry/pkg/compression"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/testkit/registrytest"
	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/engine"
	"github.com/userns-shim/userns-shim/pkg/image"
)

// front is a server before the lab's registry, for which no hosts.toml exists: it is reached as a registry
// on loopback is.
func (l *lab) front(wrap registrytest.Wrapper) string {
	l.t.Helper()
	server := httptest.NewServer(wrap(httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: l.registry.Addr()})))
	l.t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func TestPullKinds(t *testing.T) {
	l := newLab(t)
	demo := l.registry.push(t, labimage.Demo)
	for _, name := range []string{labimage.MultiArch, labimage.Empty, labimage.User} {
		l.registry.push(t, name)
	}
	for name, ref := range map[string]string{
		"index of several platforms": l.registry.Ref(labimage.MultiArch),
		"digest":                     l.registry.Addr() + "/demo@" + demo,
		"no layers":                  l.registry.Ref(labimage.Empty),
		"zstd layers":                l.pushKind(t, "zstd:1", types.OCIManifestSchema1, types.OCILayerZStd, compression.ZStd),
		"Docker media types":         l.pushKind(t, "docker:1", types.DockerManifestSchema2, types.DockerLayer, compression.GZip),
		"plain HTTP on loopback":     l.front(func(next http.Handler) http.Handler { return next }) + "/user:latest",
	} {
		t.Run(name, func(t *testing.T) {
			l := l.in(t)
			id, err := l.Pull(t.Context(), image.PullRequest{Ref: ref})
			if err != nil {
				t.Fatal(err)
			}
			if found, err := l.Get(t.Context(), ref); err != nil || found.ID != id {
				t.Errorf("get: %+v, %v, want %s", found, err, id)
			}
			req := container.SnapshotRequest{Key: newID(), ImageID: id}
			if _, err := l.PrepareSnapshot(t.Context(), req); err != nil {
				t.Fatal(err)
			}
			if err := l.RemoveSnapshot(t.Context(), "", req.Key); err != nil {
				t.Error(err)
			}
		})
	}
}

// pushKind pushes an image of one layer in a media type.
func (l *lab) pushKind(t *testing.T, name string, manifest, layer types.MediaType, c compression.Compression) string {
	t.Helper()
	plain, err := labimage.Build(labimage.Spec{Layers: []labimage.Layer{{labimage.Text("kind", name)}}})
	if err != nil {
		t.Fatal(err)
	}
	layers, err := plain.Layers()
	if err != nil {
		t.Fatal(err)
	}
	packed, err := tarball.LayerFromOpener(layers[0].Uncompressed, tarball.WithCompression(c), tarball.WithMediaType(layer))
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.Append(mutate.MediaType(empty.Image, manifest), mutate.Addendum{Layer: packed, MediaType: layer})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.registry.Push(t.Context(), name, forThisPlatform(t, img)); err != nil {
		t.Fatal(err)
	}
	return l.registry.Ref(name)
}

func forThisPlatform(t *testing.T, img v1.Image) v1.Image {
	t.Helper()
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	return img
}

// TestPullFails: each failure says what it is, and leaves nothing in containerd.
func TestPullFails(t *testing.T) {
	l := newLab(t)
	spoiled := l.front(registrytest.Spoil(registrytest.IsBlob))
	forged := l.front(registrytest.Spoil(func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/manifests/sha256:") }))
	closed := l.front(registrytest.RequireBasic("nobody", "here"))
	digest := "@" + l.registry.push(t, labimage.Demo)
	for name, c := range map[string]struct {
		ref  string
		is   func(error) bool
		says string
	}{
		"no such tag":        {l.registry.Ref("demo:no-such-tag"), errdefs.IsNotFound, "demo:no-such-tag"},
		"no such repository": {l.registry.Ref("no-such-repository:latest"), errdefs.IsNotFound, "no-such-repository"},
		"no such digest":     {l.registry.Ref("demo@sha256:" + newID()), errdefs.IsNotFound, "not found"},
		"corrupt blob":       {spoiled + "/demo:latest", errdefs.IsFailedPrecondition, "digest"},
		"wrong digest":       {forged + "/demo" + digest, errdefs.IsFailedPrecondition, "digest"},
		"no credentials":     {closed + "/demo:latest", errdefs.IsUnauthorized, "authorization"},
		"wrong diff id":      {l.pushWrongDiffID(t), func(err error) bool { return err != nil }, "diff id"},
		"nobody listens":     {"127.0.0.1:1/demo:latest", func(err error) bool { return err != nil }, "connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			l := l.in(t)
			_, err := l.Pull(t.Context(), image.PullRequest{Ref: c.ref})
			if !c.is(err) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), c.ref) {
				t.Errorf("pull: %v\nwant %q, the reference and the right class", err, c.says)
			}
			l.wantNothing()
		})
	}
}

// TestPullAfterSpoiledManifest: the first thing that a containerd ever fetches is spoiled, and the next pull of it works.
func TestPullAfterSpoiledManifest(t *testing.T) {
	l := newLab(t)
	var on atomic.Bool
	on.Store(true)
	front := l.front(registrytest.Spoil(func(r *http.Request) bool {
		return on.Load() && strings.Contains(r.URL.Path, "/manifests/sha256:")
	}))
	req := image.PullRequest{Ref: front + "/user@" + l.registry.push(t, labimage.User)}
	if _, err := l.Pull(t.Context(), req); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("pull of what is not as its digest says: %v", err)
	}
	on.Store(false)
	if _, err := l.Pull(t.Context(), req); err != nil {
		t.Error(err)
	}
}

func (l *lab) pushWrongDiffID(t *testing.T) string {
	t.Helper()
	if _, err := l.registry.Push(t.Context(), "wrong:diff", registrytest.WrongDiffID(t)); err != nil {
		t.Fatal(err)
	}
	return l.registry.Ref("wrong:diff")
}

// wantNothing checks that containerd holds no image, blob, download, snapshot or lease.
func (l *lab) wantNothing() {
	l.t.Helper()
	if records := l.imageRecords(); len(records) > 0 {
		l.t.Errorf("images are left: %v", records)
	}
	for _, thing := range l.contents() {
		l.t.Errorf("left: %s", thing)
	}
}

func TestPullWithCredentials(t *testing.T) {
	l := newLab(t)
	l.registry.push(t, labimage.User)
	basic := l.front(registrytest.RequireBasic("me", "secret"))
	token := l.front(registrytest.RequireToken)
	good, basicAuth := image.Auth{Username: "me", Password: "secret"}, "bWU6c2VjcmV0"
	for name, c := range map[string]struct {
		host string
		auth image.Auth
		ok   bool
	}{
		"name and password":          {basic, good, true},
		"base64":                     {basic, image.Auth{Auth: basicAuth}, true},
		"wrong password":             {basic, image.Auth{Username: "me", Password: "wrong"}, false},
		"for this server":            {basic, image.Auth{Auth: basicAuth, ServerAddress: basic}, true},
		"for this server, by URL":    {basic, image.Auth{Auth: basicAuth, ServerAddress: "http://" + basic + "/v1/"}, true},
		"for another server":         {basic, image.Auth{Auth: basicAuth, ServerAddress: "registry.example"}, false},
		"token for a password":       {token, good, true},
		"identity token":             {token, image.Auth{IdentityToken: "identity"}, true},
		"wrong identity token":       {token, image.Auth{IdentityToken: "wrong"}, false},
		"registry token":             {token, image.Auth{RegistryToken: "granted"}, true},
		"wrong registry token":       {token, image.Auth{RegistryToken: "wrong"}, false},
		"registry token for another": {token, image.Auth{RegistryToken: "granted", ServerAddress: "registry.example"}, false},
		"nothing":                    {token, image.Auth{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			l := l.in(t)
			id, err := l.Pull(t.Context(), image.PullRequest{Ref: c.host + "/user:latest", Auth: &c.auth})
			if (err == nil) != c.ok {
				t.Errorf("pull: %v, want success %v", err, c.ok)
			}
			if err != nil && !errdefs.IsUnauthorized(err) {
				t.Errorf("pull: %v, want unauthenticated", err)
			}
			if err == nil {
				if err := l.Remove(t.Context(), id); err != nil {
					t.Error(err)
				}
			}
			l.wantNothing()
		})
	}
}

// TestPullThroughMirror: hosts.toml leads to a mirror of a registry that does not exist, after one that does
// not answer.
func TestPullThroughMirror(t *testing.T) {
	l := newLab(t)
	l.registry.push(t, labimage.User)
	dir := filepath.Join(l.registry.CertsDir, "registry.example")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	hosts := "[host.\"http://127.0.0.1:1\"]\n[host.\"http://" + l.registry.Addr() + "\"]\n"
	if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(hosts), 0o644); err != nil {
		t.Fatal(err)
	}
	id, err := l.Pull(t.Context(), image.PullRequest{Ref: "registry.example/user:latest"})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := l.Get(t.Context(), "registry.example/user"); err != nil || info.ID != id {
		t.Errorf("get: %+v, %v", info, err)
	}
}

// TestConcurrentPulls: pulls of one reference are one, and who gives up does not take the others along.
func TestConcurrentPulls(t *testing.T) {
	l := newLab(t)
	l.registry.push(t, labimage.Demo)
	slow := registrytest.NewHeld()
	ref := l.front(slow.Wrap) + "/demo:latest"
	impatient, giveUp := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := l.Pull(impatient, image.PullRequest{Ref: ref})
		first <- err
	}()
	<-slow.Waiting
	ids := make(chan string, 8)
	var done sync.WaitGroup
	for range cap(ids) {
		done.Go(func() {
			id, err := l.Pull(t.Context(), image.PullRequest{Ref: ref})
			if err != nil {
				t.Error(err)
			}
			ids <- id
		})
	}
	await(t, "all have joined", func() bool { return l.PullCallers() == 1+cap(ids) })
	giveUp()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("the pull that was given up: %v", err)
	}
	close(slow.Release)
	done.Wait()
	close(ids)
	want := <-ids
	for id := range ids {
		if id != want || id == "" {
			t.Errorf("pulls returned %s and %s", want, id)
		}
	}
	if got := slow.Blobs.Load(); got != 6 { // five layers and a config
		t.Errorf("%d blobs were fetched, want 6", got)
	}
}

// TestPullIsGivenUp: when the last caller has gone, the pull ends and leaves nothing.
func TestPullIsGivenUp(t *testing.T) {
	l := newLab(t)
	l.registry.push(t, labimage.Demo)
	slow := registrytest.NewHeld()
	ctx, giveUp := context.WithCancel(t.Context())
	go func() {
		<-slow.Waiting
		giveUp()
	}()
	if _, err := l.Pull(ctx, image.PullRequest{Ref: l.front(slow.Wrap) + "/demo:latest"}); !errors.Is(err, context.Canceled) {
		t.Errorf("pull: %v, want canceled", err)
	}
	if err := l.Close(); err != nil { // waits for the pull
		t.Fatal(err)
	}
	l.wantNothing()
}

func TestPullStalls(t *testing.T) {
	l := newLab(t)
	l.registry.push(t, labimage.Demo)
	slow := registrytest.NewHeld()
	impatient := l.newEngine(engine.Options{PullProgressTimeout: 500 * time.Millisecond})
	began := time.Now()
	_, err := impatient.Pull(t.Context(), image.PullRequest{Ref: l.front(slow.Wrap) + "/demo:latest"})
	if err == nil || !strings.Contains(err.Error(), "no progress for 500ms") || time.Since(began) > 20*time.Second {
		t.Errorf("pull after %v: %v, want no progress", time.Since(began), err)
	}
	l.wantNothing()
}

// TestSlowPullIsNoStall: bytes that come slowly are progress.
func TestSlowPullIsNoStall(t *testing.T) {
	l := newLab(t)
	l.registry.push(t, labimage.User)
	// A blob takes longer than the limit, and each pause is far below it: machines halt for a second or two.
	const limit = 5 * time.Second
	patient := l.newEngine(engine.Options{PullProgressTimeout: limit})
	slow := l.front(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !registrytest.IsBlob(r) {
				next.ServeHTTP(w, r)
				return
			}
			answer := httptest.NewRecorder()
			next.ServeHTTP(answer, r)
			w.WriteHeader(answer.Code)
			body := answer.Body
			for range 5 {
				_, _ = io.Copy(w, io.LimitReader(body, max(int64(body.Len()/6), 1)))
				w.(http.Flusher).Flush()
				time.Sleep(limit/5 + 100*time.Millisecond)
			}
			_, _ = io.Copy(w, bytes.NewReader(body.Bytes()))
		})
	})
	if _, err := patient.Pull(t.Context(), image.PullRequest{Ref: slow + "/user:latest"}); err != nil {
		t.Error(err)
	}
}
