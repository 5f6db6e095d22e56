package e2e

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
	"github.com/userns-shim/userns-shim/internal/testkit/registrytest"
)

// wantNothingStored checks that a failed pull left nothing: no blob, download, lease or half-unpacked snapshot.
func wantNothingStored(t *testing.T, n *nodetest.Node) {
	t.Helper()
	for _, thing := range stored(t, n) {
		t.Errorf("left behind: %s", thing)
	}
}

// lastLayer is the digest of an image's topmost layer.
func lastLayer(t *testing.T, spec labimage.Spec) string {
	t.Helper()
	img, err := labimage.Build(spec)
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := layers[len(layers)-1].Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest.String()
}

// TestPullOfSpoiledImages: what is not as its digest says is refused with a clear error and leaves nothing, and the next
// pull of it, unspoiled, works.
func TestPullOfSpoiledImages(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{})
	spec := labimage.Catalogue(n.Box())[labimage.Demo]
	digest := n.PushImage(t, "faults/image:v1", spec)
	// The last layer: the others may be unpacked by then.
	last := lastLayer(t, spec)
	isLast := func(r *http.Request) bool { return registrytest.IsBlob(r) && strings.HasSuffix(r.URL.Path, last) }
	isManifest := func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/manifests/") }
	var on atomic.Bool
	during := func(which func(*http.Request) bool) registrytest.Wrapper {
		return registrytest.Spoil(func(r *http.Request) bool { return on.Load() && which(r) })
	}
	cut := func(next http.Handler) http.Handler { // a connection that ends in the middle of a layer
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !on.Load() || !isLast(r) {
				next.ServeHTTP(w, r)
				return
			}
			answer := httptest.NewRecorder()
			next.ServeHTTP(answer, r)
			w.Header().Set("Content-Length", fmt.Sprint(answer.Body.Len()))
			w.WriteHeader(answer.Code)
			_, _ = w.Write(answer.Body.Bytes()[:answer.Body.Len()/2])
			panic(http.ErrAbortHandler)
		})
	}
	cuts := newFront(t, n, nil, cut)
	// Otherwise TLS is tried again, and the error is of that.
	writeHosts(t, n, cuts.Host, fmt.Sprintf("server = \"http://%s\"\n", cuts.Host))
	for _, tc := range []struct {
		name string
		host *front
		ref  string
		code codes.Code
		says string
	}{
		// First: containerd collects nothing before it has stored a blob.
		{"wrong digest", newFront(t, n, nil, during(isManifest)), "@" + digest, codes.FailedPrecondition, "digest"},
		{"corrupt layer", newFront(t, n, nil, during(isLast)), ":v1", codes.FailedPrecondition, "digest"},
		{"corrupt config", newFront(t, n, nil, during(registrytest.IsBlob)), ":v1", codes.FailedPrecondition, "digest"},
		{"layers break off", cuts, ":v1", codes.Unavailable, "EOF"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ref := tc.host.Host + "/faults/image" + tc.ref
			on.Store(true)
			_, err := tryPull(t.Context(), n, ref, nil)
			wantError(t, err, tc.code, tc.says, ref)
			wantNothingStored(t, n)
			on.Store(false)
			pulled(t, n, ref)
			n.RunPod(t).Run(t, ref).Exec(t, "cat", "/data/added")
			// The pod goes before the image, whose content then goes too.
		})
		eventually(t, "nothing stored after the image's removal", func() bool { return len(stored(t, n)) == 0 })
	}
}

// TestPullOfImagesThatLie: a layer that is not what the config says is refused, and one whose names climb is refused or
// kept in its place.
func TestPullOfImagesThatLie(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{})
	if _, err := n.Registry.Push(t.Context(), "faults/diff:v1", registrytest.WrongDiffID(t)); err != nil {
		t.Fatal(err)
	}
	_, err := tryPull(t.Context(), n, n.Registry.Ref("faults/diff:v1"), nil)
	if err == nil || !strings.Contains(err.Error(), "diff") {
		t.Errorf("error is %v, want one that names the diff id", err)
	}
	wantNothingStored(t, n)

	n.PushImage(t, "faults/escape:v1", labimage.Spec{Layers: []labimage.Layer{{labimage.Text("../../escaped", "out of the root")}}})
	_, err = tryPull(t.Context(), n, n.Registry.Ref("faults/escape:v1"), nil)
	found := filesNamed(t, n.Dir, "escaped")
	if err == nil && len(found) == 0 {
		t.Error("the layer's file is nowhere below the node's directory")
	}
	for _, path := range found {
		if ok, _ := filepath.Match(filepath.Join(snapshotsDir(n), "*", "fs", "*"), path); !ok {
			t.Errorf("a layer has put a file at %s", path)
		}
	}
	if err == nil {
		removeImage(t, n, n.Registry.Ref("faults/escape:v1"))
	}
}

// filesNamed finds files below a directory, and in the root of the host.
func filesNamed(t *testing.T, dir, name string) (found []string) {
	t.Helper()
	if _, err := os.Lstat("/" + name); err == nil {
		found = append(found, "/"+name)
	}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Name() == name {
			found = append(found, path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone meanwhile
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestConcurrentPullsFetchOnce: pulls of one image at the same time, by tag and by digest, ask the registry for each of
// its blobs once.
func TestConcurrentPullsFetchOnce(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{})
	digest := n.PushImage(t, "many/image:v1", labimage.Catalogue(n.Box())[labimage.Demo])
	slow := registrytest.NewHeld()
	f := newFront(t, n, nil, slow.Wrap)
	var done sync.WaitGroup
	ids := make(chan string, 16)
	start := func(i int) {
		ref := f.Host + "/many/image:v1"
		if i%2 == 1 {
			ref = f.Host + "/many/image@" + digest
		}
		done.Go(func() {
			id, err := tryPull(t.Context(), n, ref, nil)
			if err != nil {
				t.Errorf("pull %s: %v", ref, err)
			}
			ids <- id
		})
	}
	asked := func(name string) int { return f.requests("HEAD", name) }
	start(0)
	start(1)
	<-slow.Waiting
	eventually(t, "both pulls are under way", func() bool { return asked("/manifests/v1") > 0 && asked("/manifests/"+digest) > 0 })
	under := takeCensus(t, n).goroutines
	for range 10 { // until both wait for the registry, and nothing else runs
		time.Sleep(50 * time.Millisecond)
		under = min(under, takeCensus(t, n).goroutines)
	}
	for i := range cap(ids) - 2 {
		start(i + 2)
	}
	// Each call that has come is a goroutine of the daemon's.
	eventually(t, "the others have come", func() bool { return takeCensus(t, n).goroutines >= under+cap(ids)-2 })
	time.Sleep(200 * time.Millisecond) // from its beginning to the pull that it joins
	close(slow.Release)
	done.Wait()
	close(ids)
	want := <-ids
	for id := range ids {
		if id != want {
			t.Errorf("pulls of one image return %s and %s", want, id)
		}
	}
	if got := f.requests("GET", "/blobs/"); got != 6 { // five layers and the config
		t.Errorf("the registry was asked for %d blobs, the image has 6", got)
	}
	for name, want := range map[string]int{"/manifests/v1": 1, "/manifests/" + digest: 1} {
		if got := asked(name); got != want {
			t.Errorf("the registry was asked %d times what %s is, want %d", got, name, want)
		}
	}
	removeImage(t, n, want)
}

// TestPullThatStallsIsCancelled, and leaves nothing; one whose client goes away ends too.
func TestPullThatStallsIsCancelled(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{Daemon: labnode.DaemonOptions{Registry: "pullProgressTimeout: 5s"}})
	n.PushImage(t, "stalls/image:v1", labimage.Catalogue(n.Box())[labimage.Demo])
	slow := registrytest.NewHeld()
	ref := newFront(t, n, nil, slow.Wrap).Host + "/stalls/image:v1"
	began := time.Now()
	_, err := tryPull(t.Context(), n, ref, nil)
	wantError(t, err, codes.DeadlineExceeded, "no progress for 5s", ref)
	if took := time.Since(began); took < 5*time.Second || took > 15*time.Second {
		t.Errorf("it was cancelled after %v", took)
	}
	eventually(t, "nothing stored", func() bool { return len(stored(t, n)) == 0 })
	close(slow.Release)
	pulled(t, n, ref)
}

// TestSlowPullIsNotCancelled: bytes that come slowly, for longer than a pull may stall, are progress, and the log tells
// of it.
func TestSlowPullIsNotCancelled(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{Daemon: labnode.DaemonOptions{Registry: "pullProgressTimeout: 6s", Args: []string{"-v", "2"}}})
	data := make([]byte, 1<<20)
	if _, err := rand.Read(data); err != nil {
		t.Fatal(err)
	}
	n.PushImage(t, "slow/image:v1", labimage.Spec{Layers: []labimage.Layer{{labimage.Program("data", data)}}})
	dribble := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			answer := httptest.NewRecorder()
			next.ServeHTTP(answer, r)
			if !registrytest.IsBlob(r) || answer.Body.Len() < len(data) {
				registrytest.Replay(w, answer)
				return
			}
			w.WriteHeader(answer.Code)
			for range 24 {
				_, _ = io.CopyN(w, answer.Body, int64(len(data)/24))
				w.(http.Flusher).Flush()
				time.Sleep(500 * time.Millisecond)
			}
			_, _ = io.Copy(w, answer.Body)
		})
	}
	ref := newFront(t, n, nil, dribble).Host + "/slow/image:v1"
	began := time.Now()
	pulled(t, n, ref)
	if took := time.Since(began); took < 10*time.Second {
		t.Fatalf("the pull took %v: too fast to be of use", took)
	}
	log, err := os.ReadFile(n.Daemon.Log)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"Pulling image"`, `"Still pulling image" .*image="` + ref + `" bytes=[1-9]`, `"Pulled image" .*image="` + ref + `"`} {
		if !regexp.MustCompile(want).Match(log) {
			t.Errorf("the log does not have %s", want)
		}
	}
}
