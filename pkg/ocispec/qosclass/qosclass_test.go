package qosclass

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/userns-shim/userns-shim/pkg/ocispec"
)

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "classes.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func newSpec() *specs.Spec {
	return &specs.Spec{Linux: &specs.Linux{Resources: &specs.LinuxResources{}}}
}

// TestBlockIOClass needs no device: the weight is one of the whole container.
func TestBlockIOClass(t *testing.T) {
	c := New(Options{BlockIOConfigFile: file(t, "Classes:\n  slow:\n  - Weight: 20\n  fast:\n  - Weight: 900\n")})
	if err := c.Faults(); err != nil {
		t.Fatal(err)
	}
	pod := map[string]string{
		"blockio.resources.beta.kubernetes.io/pod":         "slow",
		"blockio.resources.beta.kubernetes.io/container.b": "fast",
	}
	for name, want := range map[string]uint16{"a": 20, "b": 900} {
		spec := newSpec()
		if err := c.Apply(spec, Request{Container: name, PodAnnotations: pod}); err != nil {
			t.Fatal(err)
		}
		if b := spec.Linux.Resources.BlockIO; b == nil || b.Weight == nil || *b.Weight != want {
			t.Errorf("container %s: block I/O %+v, want weight %d", name, b, want)
		}
	}
	err := c.Apply(newSpec(), Request{ContainerAnnotations: map[string]string{"io.kubernetes.cri.blockio-class": "lost"}})
	if !errors.Is(err, ocispec.ErrInvalid) || !strings.Contains(err.Error(), "lost") {
		t.Errorf("unknown class: %v, want ErrInvalid that names it", err)
	}
	spec := newSpec()
	if err := c.Apply(spec, Request{Container: "a"}); err != nil || spec.Linux.Resources.BlockIO != nil || spec.Linux.IntelRdt != nil {
		t.Errorf("without annotations: %v, %+v", err, spec.Linux)
	}
}

func TestClassesThatTheNodeDoesNotHave(t *testing.T) {
	annotations := map[string]map[string]string{
		"block I/O": {"blockio.resources.beta.kubernetes.io/pod": "gold"},
		"RDT":       {"rdt.resources.beta.kubernetes.io/pod": "gold"},
	}
	missing := filepath.Join(t.TempDir(), "missing.yaml")
	for name, tt := range map[string]struct {
		opts Options
		says string
	}{
		"no file":        {Options{}, "no configuration file is named"},
		"file not there": {Options{BlockIOConfigFile: missing, RDTConfigFile: missing}, ""},
	} {
		c := New(tt.opts)
		if faulty := c.Faults() != nil; faulty != (tt.opts != Options{}) {
			t.Errorf("%s: faults: %v", name, c.Faults())
		}
		for kind, pod := range annotations {
			err := c.Apply(newSpec(), Request{Container: "a", PodAnnotations: pod})
			if !errors.Is(err, ocispec.ErrUnsupported) || !strings.Contains(err.Error(), `"gold"`) ||
				!strings.Contains(err.Error(), kind) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%s, %s: %v, want ErrUnsupported that names kind, class and %q", name, kind, err, tt.says)
			}
		}
	}
}
