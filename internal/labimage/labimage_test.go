package labimage

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// tinyBox stands in where a test needs no program that runs.
var tinyBox = Box{Program: []byte("#!"), Applets: []string{"sh", "cat"}, Shell: true}

func TestBuildIsDeterministic(t *testing.T) {
	for name, spec := range Catalogue(tinyBox) {
		first, err := Build(spec)
		if err != nil {
			t.Fatalf("Build(%s): %v", name, err)
		}
		second, err := Build(spec)
		if err != nil {
			t.Fatalf("Build(%s) again: %v", name, err)
		}
		one, two := mustDigest(t, first.Digest), mustDigest(t, second.Digest)
		if one != two {
			t.Errorf("%s: two builds differ: %s and %s", name, one, two)
		}
	}
}

func TestCatalogueLayerCounts(t *testing.T) {
	want := map[string]int{Demo: 5, Layers40: 40, Empty: 0}
	catalogue := Catalogue(tinyBox)
	for name, count := range want {
		if got := len(catalogue[name].Layers); got != count {
			t.Errorf("%s has %d layers, want %d", name, got, count)
		}
	}
}

func TestRegistryServesWhatWasPushed(t *testing.T) {
	registry := newRegistry(t, nil)
	digests, err := registry.PushAll(t.Context(), tinyBox)
	if err != nil {
		t.Fatal(err)
	}
	for repoTag, digest := range digests {
		ref, err := name.ParseReference(registry.Ref(repoTag), name.Insecure)
		if err != nil {
			t.Fatal(err)
		}
		head, err := remote.Head(ref, remote.WithContext(t.Context()))
		if err != nil {
			t.Fatalf("head of %s: %v", repoTag, err)
		}
		if head.Digest.String() != digest {
			t.Errorf("%s is served as %s, pushed as %s", repoTag, head.Digest, digest)
		}
		img, err := remote.Image(ref, remote.WithContext(t.Context()))
		if err != nil {
			t.Fatalf("pull %s: %v", repoTag, err)
		}
		if err := validate.Image(img); err != nil {
			t.Errorf("%s is no valid image: %v", repoTag, err)
		}
	}
	if registry.Requests("HEAD /v2/demo/manifests/latest") == 0 {
		t.Error("Requests counted no HEAD of demo:latest")
	}
}

func TestRegistryServesTheGivenListener(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	registry := newRegistry(t, listener)
	if registry.Addr() != listener.Addr().String() {
		t.Fatalf("Addr() = %s, want the listener's %s", registry.Addr(), listener.Addr())
	}
	resp, err := http.Get("http://" + registry.Addr() + "/v2/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Errorf("GET /v2/ = %s", resp.Status)
	}
}

func TestReadBusyboxRefusesADynamicProgram(t *testing.T) {
	shell, err := exec.LookPath("bash") // dynamically linked everywhere, and what make runs its scripts by
	if err != nil {
		t.Fatal(err)
	}
	_, err = ReadBusybox(t.Context(), shell)
	if err == nil || !strings.Contains(err.Error(), "linked dynamically") {
		t.Errorf("ReadBusybox(%s) = %v, want an error that names the dynamic linkage", shell, err)
	}
}

func TestBuiltBoxActsAsItsApplets(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	box, err := BuildBox(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"cat", "id", "sleep", "stat"} {
		if !slices.Contains(box.Applets, want) {
			t.Errorf("applets %v lack %s", box.Applets, want)
		}
	}
	if err := checkStatic(box.Program); err != nil {
		t.Errorf("built box: %v", err)
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "stat")
	if err := os.WriteFile(program, box.Program, 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(ctx, program, "-c", "%a", program).CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "755" {
		t.Errorf("stat -c %%a = %q, %v; want 755", out, err)
	}
}

func TestWriteHosts(t *testing.T) {
	dir := t.TempDir()
	for _, host := range []string{DefaultHost, "127.0.0.1:5000"} {
		if err := WriteHosts(dir, host, "127.0.0.1:5000"); err != nil {
			t.Fatal(err)
		}
	}
	named, err := os.ReadFile(filepath.Join(dir, "127.0.0.1:5000", "hosts.toml"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(named), `server = "http://127.0.0.1:5000"`) {
		t.Errorf("hosts.toml of a named host lacks its server line:\n%s", named)
	}
	fallback, err := os.ReadFile(filepath.Join(dir, DefaultHost, "hosts.toml"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(fallback), "server =") {
		t.Errorf("hosts.toml of %s names one server for all:\n%s", DefaultHost, fallback)
	}
}

func newRegistry(t *testing.T, listener net.Listener) *Registry {
	t.Helper()
	registry, err := NewRegistry(listener)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := registry.Close(); err != nil {
			t.Errorf("close registry: %v", err)
		}
	})
	return registry
}

func mustDigest[H interface{ String() string }](t *testing.T, digest func() (H, error)) string {
	t.Helper()
	hash, err := digest()
	if err != nil {
		t.Fatal(err)
	}
	return hash.String()
}
