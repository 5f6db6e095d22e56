package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// suite is what all tests of one run share.
type suite struct {
	build func() (programs, error)

	mu   sync.Mutex
	node *nodetest.Node
}

// programs are the binaries under test and in containers.
type programs struct {
	daemon string
	plugin string // path of nriplugin
	probe  []byte
}

var shared suite

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if file := os.Getenv(kubeletStubEnv); file != "" {
		fmt.Fprintln(os.Stderr, kubeletStub(file))
		return 1
	}
	dir, err := os.MkdirTemp("", "userns-shim-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	shared.build = sync.OnceValues(func() (programs, error) { return buildPrograms(context.Background(), dir) })
	return nodetest.Main(m, shared.close)
}

// buildPrograms builds from source, so that what is tested is what stands there; with testkit.BinEnv set it
// takes the programs from that directory, for machines without a go tool.
func buildPrograms(ctx context.Context, dir string) (programs, error) {
	if bin := os.Getenv(testkit.BinEnv); bin != "" {
		dir = bin
	} else if err := build(ctx, dir); err != nil {
		return programs{}, err
	}
	probe, err := os.ReadFile(filepath.Join(dir, "probe"))
	if err != nil {
		return programs{}, fmt.Errorf("read probe: %w", err)
	}
	return programs{daemon: filepath.Join(dir, "userns-shim"), plugin: filepath.Join(dir, "nriplugin"), probe: probe}, nil
}

func build(ctx context.Context, dir string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", dir+"/", "./cmd/...", "./test/e2e/probe", "./test/e2e/nriplugin")
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", cmd, err, out)
	}
	return nil
}

func (s *suite) close(ctx context.Context) error {
	if s.node == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return s.node.Close(ctx)
}

func (s *suite) programs(t *testing.T) programs {
	t.Helper()
	testkit.RequireRoot(t)
	p, err := s.build()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// sharedNode returns the node that tests share, which has to be as it was when the test ends. Such tests do
// not run in parallel: what is left behind is theirs.
func sharedNode(t *testing.T) *nodetest.Node {
	t.Helper()
	p := shared.programs(t)
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.node == nil {
		node, err := nodetest.New(t.Context(), labnode.Options{Tools: nodetest.Tools(t), Binary: p.daemon})
		if err != nil {
			t.Fatal(err)
		}
		node.Ranges = rangesInUse(node)
		shared.node = node
	}
	node := shared.node
	node.ShowLogs(t)
	node.WantNoLeaks(t)
	return node
}

// ownNode starts a node for a test that does things to its daemons, or needs other settings. Such tests may
// run in parallel.
func ownNode(t *testing.T, opts labnode.Options) *nodetest.Node {
	t.Helper()
	opts.Binary = shared.programs(t).daemon
	node := nodetest.Start(t, opts)
	node.Ranges = rangesInUse(node)
	return node
}

// result is what the probe prints.
type result struct {
	Errno  string `json:"errno"`
	Detail string `json:"detail"`
	Count  int    `json:"count"`
	UID    int    `json:"uid"`
	GID    int    `json:"gid"`
	Groups []int  `json:"groups"`
	Text   string `json:"text"`
}

// Where the probe is in the image that probeImage makes: as itself, and with setuid bits of two owners.
const (
	probePath      = "/bin/probe"
	probeSetuid    = "/suid/root"
	probeSetuid1k  = "/suid/nonroot"
	probeImageName = "probe:latest"
)

// probeImage is the demo image with the probe in it.
func probeImage(t *testing.T, n *nodetest.Node) string {
	t.Helper()
	if ref, ok := n.Pulled(probeImageName); ok {
		return ref
	}
	program := shared.programs(t).probe
	spec := labimage.Catalogue(n.Box())[labimage.Demo]
	spec.Layers = append(spec.Layers[:len(spec.Layers):len(spec.Layers)], labimage.Layer{
		labimage.Program("bin/probe", program),
		labimage.Dir("suid", 0o755),
		labimage.File{Path: "suid/root", Mode: 0o4755, Data: program},
		labimage.File{Path: "suid/nonroot", Mode: 0o6755, UID: labimage.NonRoot, GID: labimage.NonRoot, Data: program},
	})
	return n.ImageOf(t, probeImageName, spec)
}

// probe runs the probe in a container.
func probe(t *testing.T, c *nodetest.Container, args ...string) result {
	t.Helper()
	return parseResult(t, c.Exec(t, append([]string{probePath}, args...)...))
}

func parseResult(t *testing.T, line string) result {
	t.Helper()
	var r result
	if err := json.Unmarshal([]byte(line), &r); err != nil {
		t.Fatalf("the probe printed %q: %v", line, err)
	}
	return r
}
