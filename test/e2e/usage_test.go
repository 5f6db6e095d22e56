package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// usage is what a process has used.
type usage struct {
	CPU        time.Duration
	Anon, File uint64 // resident, bytes
}

func (u usage) String() string {
	return fmt.Sprintf("%v of processor time, %.1f MiB of its own, %.1f MiB of files", u.CPU.Round(time.Millisecond), mib(u.Anon), mib(u.File))
}

func mib(bytes uint64) float64 { return float64(bytes) / (1 << 20) }

// use reads the usage of the daemon.
func use(t *testing.T, n *nodetest.Node) usage {
	t.Helper()
	dir := filepath.Join("/proc", strconv.Itoa(n.Daemon.PID()))
	text, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		t.Fatal(err)
	}
	stat := strings.Fields(string(text)[strings.LastIndexByte(string(text), ')')+1:])
	var u usage
	for _, ticks := range stat[11:13] { // utime and stime, in hundredths of a second
		v, err := strconv.ParseUint(ticks, 10, 63)
		if err != nil {
			t.Fatal(err)
		}
		u.CPU += time.Duration(v) * 10 * time.Millisecond
	}
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		kib, _ := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 63)
		switch name {
		case "RssAnon":
			u.Anon = kib << 10
		case "RssFile":
			u.File = kib << 10
		}
	}
	return u
}
