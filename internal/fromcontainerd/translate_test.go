package fromcontainerd

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/userns-shim/userns-shim/internal/config"
)

var update = flag.Bool("update", false, "write the golden files")

// TestTranslate takes files that containerd 1.7, 2.1 and 2.4 printed as their defaults, and files of nodes, one of
// them with an import. Each result is a valid file, and equal to the golden one beside it.
func TestTranslate(t *testing.T) {
	files, err := filepath.Glob("testdata/*.toml")
	if err != nil || len(files) != 5 {
		t.Fatalf("files %v, %v", files, err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			tree, err := Load(name, "/nowhere")
			if err != nil {
				t.Fatal(err)
			}
			tr, err := Translate(tree)
			if err != nil {
				t.Fatal(err)
			}
			text, err := tr.Config.MarshalChanged(func(string) string { return "" })
			if err != nil {
				t.Fatal(err)
			}
			if again, problems := config.Check(text); len(problems) > 0 || fmt.Sprint(again) != fmt.Sprint(tr.Config) {
				t.Errorf("the file says %+v, %v, want %+v", again, problems, tr.Config)
			}
			got := string(text)
			for _, n := range tr.Notes {
				got += fmt.Sprintf("# %s = %s: %s\n", n.From, n.Value, n.Why)
			}
			if strings.Contains(got, "do-not-print") {
				t.Error("a password is printed")
			}
			golden := strings.TrimSuffix(name, ".toml") + ".golden.yaml"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil || string(want) != got {
				t.Errorf("got\n%s\nwant (%v)\n%s", got, err, want)
			}
		})
	}
}

// TestEverySettingOfContainerdHasARule: what the default files of all versions have is known by name, so that
// nothing of them is merely unknown.
func TestEverySettingOfContainerdHasARule(t *testing.T) {
	for _, name := range []string{"containerd-1.7-default", "containerd-2.1-default", "containerd-2.4-default"} {
		tree, err := Load("testdata/"+name+".toml", "/nowhere")
		if err != nil {
			t.Fatal(err)
		}
		settings := collect(tree)
		if len(settings) < 60 {
			t.Errorf("%s has %d settings only", name, len(settings))
		}
		for _, s := range settings {
			if _, ok := rules[s.key]; !ok && !strings.HasPrefix(s.key, "nri.default_validator.") {
				t.Errorf("%s: no rule for %s", name, s.key)
			}
		}
	}
}

func TestTranslateRefuses(t *testing.T) {
	for name, tc := range map[string]struct{ text, says string }{
		"version 1":    {"[plugins.cri]\nsystemd_cgroup = true\n", "version 0 of containerd's configuration"},
		"a newer one":  {"version = 9\n", "version 9"},
		"wrong type":   {"version = 3\n[plugins.'io.containerd.cri.v1.runtime']\nenable_unprivileged_ports = 'yes'\n", "enable_unprivileged_ports: is yes: want a bool"},
		"wrong list":   {"version = 3\n[plugins.'io.containerd.cri.v1.runtime']\ncdi_spec_dirs = [1]\n", "cdi_spec_dirs: is 1: want a string"},
		"no duration":  {"version = 3\n[plugins.'io.containerd.grpc.v1.cri']\nstream_idle_timeout = 'long'\n", "stream_idle_timeout"},
		"broken TOML":  {"version = 3\n[plugins\n", "line 2"},
		"no such file": {"version = 3\nimports = ['missing.toml']\n", "missing.toml"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "config.toml")
			if err := os.WriteFile(file, []byte(tc.text), 0o600); err != nil {
				t.Fatal(err)
			}
			tree, err := Load(file, "/")
			if err == nil {
				_, err = Translate(tree)
			}
			if err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got %v, want %s", err, tc.says)
			}
		})
	}
}

// TestImportsAreBelowTheRoot, each file is read once, and the imported ones win.
func TestImportsAreBelowTheRoot(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("etc/containerd/config.toml", "version = 3\nimports = ['/etc/containerd/conf.d/*.toml']\n[grpc]\naddress = '/first.sock'\nuid = 1\n")
	write("etc/containerd/conf.d/a.toml", "version = 3\nimports = ['/etc/containerd/config.toml']\n[grpc]\naddress = '/second.sock'\n")
	tree, err := Load(filepath.Join(root, "etc/containerd/config.toml"), root)
	if err != nil {
		t.Fatal(err)
	}
	grpc, _ := tree["grpc"].(map[string]any)
	if grpc["address"] != "/second.sock" || grpc["uid"] != int64(1) {
		t.Errorf("the tree is %v", tree)
	}
	write("etc/containerd/conf.d/b.toml", "version = 2\n")
	if _, err := Load(filepath.Join(root, "etc/containerd/config.toml"), root); err == nil || !strings.Contains(err.Error(), "bring them to one") {
		t.Errorf("two versions: %v", err)
	}
}
