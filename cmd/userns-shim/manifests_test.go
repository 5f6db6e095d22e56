package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/userns-shim/userns-shim/internal/config"
)

const manifests = "../../manifests"

// TestManifestsConfigHasTheRuntimeClasses: each class of manifests/ names a handler of the configuration that is installed
// with it, with the policy that the class promises.
func TestManifestsConfigHasTheRuntimeClasses(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(manifests, "base", "config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	cfg, problems := config.Check(text)
	if len(problems) > 0 {
		t.Errorf("config.yaml: %v", problems)
	}
	want := map[string]config.UserNamespacePolicy{"userns": config.UserNamespacesAlways, "userns-opt-in": config.UserNamespacesOptIn}
	classes := objects[struct {
		Metadata struct{ Name string }
		Handler  string
	}](t, filepath.Join(manifests, "base", "runtimeclasses.yaml"))
	if len(classes) != len(want) {
		t.Errorf("%d classes, want %d", len(classes), len(want))
	}
	for _, class := range classes {
		if got := cfg.RuntimeHandlers[class.Handler].UserNamespaces; got != want[class.Metadata.Name] || got == "" {
			t.Errorf("the handler of class %s has the policy %q, want %q", class.Metadata.Name, got, want[class.Metadata.Name])
		}
	}
}

// TestManifestsCommandsExist: what the DaemonSets run is a command of this program, with its flags.
func TestManifestsCommandsExist(t *testing.T) {
	type container struct{ Args []string }
	type daemonSet struct {
		Spec struct {
			Template struct {
				Spec struct {
					InitContainers []container `yaml:"initContainers"`
					Containers     []container
				}
			}
		}
	}
	checked := 0
	for _, name := range []string{"installer.yaml", "uninstaller.yaml"} {
		for _, ds := range objects[daemonSet](t, filepath.Join(manifests, "base", name)) {
			pod := ds.Spec.Template.Spec
			for _, c := range append(pod.InitContainers, pod.Containers...) {
				checked++
				if err := checkCommand(c.Args); err != nil {
					t.Errorf("%s: %v: %v", name, c.Args, err)
				}
			}
		}
	}
	if checked != 4 {
		t.Errorf("%d commands, want 4", checked)
	}
}

// objects reads the documents of a file.
func objects[T any](t *testing.T, name string) []T {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var out []T
	for dec := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var one T
		if err := dec.Decode(&one); errors.Is(err, io.EOF) {
			return out
		} else if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out = append(out, one)
	}
}
