package doctor

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/userns-shim/userns-shim/internal/kernel"
)

var update = flag.Bool("update", false, "write the golden files")

// TestText is what an operator reads: of a node that is well, and of one that is not, the worst first.
func TestText(t *testing.T) {
	for name, change := range map[string]func(w *world){
		"well": func(*world) {},
		"sick": func(w *world) {
			w.write("/proc/sys/kernel/osrelease", "6.1.0-31-amd64")
			w.kernel.missing["idmapped tmpfs"] = &kernel.FeatureError{Feature: "idmapped tmpfs", Needs: "Linux 6.3", Err: os.ErrInvalid}
			w.kernel.plain["/srv/kubelet/pods/a/volumes/data"] = unsupported("/srv/kubelet/pods/a/volumes/data")
			w.opts.Ports.Network = func(context.Context) error { return errors.New("no configuration in /etc/cni/net.d") }
			w.sysctl("fs.inotify.max_user_instances", "128")
			w.subids["-g kubelet"] = ""
			w.opts.Ports.Daemon = func(context.Context) (Daemon, error) { return Daemon{}, errors.New("nobody listens") }
		},
	} {
		w := newWorld(t)
		change(w)
		_, report := w.examine()
		report.Sort()
		var out bytes.Buffer
		if err := report.WriteText(&out); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("testdata", name+".golden")
		if *update {
			if err := os.MkdirAll("testdata", 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if out.String() != string(want) {
			t.Errorf("%s: got\n%s\nwant\n%s", name, out.String(), want)
		}
	}
}

func TestSeverities(t *testing.T) {
	if !Error.Worse(Warning) || !Warning.Worse(Warning) || Info.Worse(Unknown) || OK.Worse(Info) {
		t.Error("severities are out of order")
	}
	if worst := (Report{Findings: []Finding{{Severity: OK}, {Severity: Unknown}, {Severity: Info}}}).Worst(); worst != Unknown {
		t.Errorf("the worst is %s", worst)
	}
}
