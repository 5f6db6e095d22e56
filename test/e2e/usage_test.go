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
	Waited     time.Duration // for a processor, of the thread that waited longest
	Anon, File uint64        // resident, bytes
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
	u.Waited = waited(t, dir)
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

// waited is how long that thread of a process was ready to run and was not let which had to wait longest.
func waited(t *testing.T, dir string) (longest time.Duration) {
	t.Helper()
	threads, err := filepath.Glob(filepath.Join(dir, "task/*/schedstat"))
	if err != nil || len(threads) == 0 {
		t.Fatalf("the process has threads %v, %v", threads, err)
	}
	for _, path := range threads {
		text, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			continue // it has ended
		}
		if err != nil {
			t.Fatal(err)
		}
		var ran, wait int64
		if _, err := fmt.Sscan(string(text), &ran, &wait); err != nil {
			t.Fatalf("%s says %q: %v", path, text, err)
		}
		longest = max(longest, time.Duration(wait))
	}
	return longest
}
