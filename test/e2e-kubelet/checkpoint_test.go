package e2ekubelet

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/userns-shim/userns-shim/internal/testkit"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// TestCheckpoint asks kubelet's server for a checkpoint, which it has the runtime write below its own directory. The container goes on.
func TestCheckpoint(t *testing.T) {
	testkit.RequireCRIU(t)
	eachUsers(t, func(t *testing.T, n *node, hostUsers bool) {
		p := n.run(t, hostUsers, sleeper)
		before := containersOf(p.ready(t))
		p.sh(t, "echo kept > /made")
		body, err := n.client.do(t.Context(), http.MethodPost, p.path("checkpoint", "main"), nil)
		if hostUsers || nodetest.HasSysResource(t) {
			p.wantCheckpoint(t, body, err)
		} else if err == nil || !strings.Contains(err.Error(), "CRIU cannot do it: rlimit") {
			t.Errorf("without CAP_SYS_RESOURCE kubelet answers %s, %v", body, err)
		}
		if got := p.sh(t, "cat /made"); got != "kept" {
			t.Errorf("the container that goes on reads %q", got)
		}
		wantSame(t, []*pod{p}, map[*pod]running{p: before})
	})
}

// wantCheckpoint reads kubelet's answer, and the archive that it names.
func (p *pod) wantCheckpoint(t *testing.T, body []byte, err error) {
	t.Helper()
	var answer struct{ Items []string }
	if err == nil {
		err = json.Unmarshal(body, &answer)
	}
	if err != nil || len(answer.Items) != 1 {
		t.Fatalf("kubelet answers %s, %v", body, err)
	}
	path := answer.Items[0]
	if dir := filepath.Join(p.node.kubelet.Root, "checkpoints"); filepath.Dir(path) != dir {
		t.Errorf("the archive is %s, want it in %s", path, dir)
	}
	names := archived(t, path)
	for _, want := range []string{"config.dump", "spec.dump", "status.dump", "rootfs-diff.tar", "checkpoint/inventory.img", "checkpoint/pages-1.img"} {
		if !slices.Contains(names, want) {
			t.Errorf("the archive lacks %s: it has %q", want, names)
		}
	}
}

// archived lists what is in an archive that only root may read.
func archived(t *testing.T, path string) (names []string) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || info.Mode() != 0o600 {
		t.Errorf("the archive is %v, %v, want mode 0600", info, err)
	}
	for in := tar.NewReader(file); ; {
		header, err := in.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, filepath.Clean(header.Name))
	}
}
