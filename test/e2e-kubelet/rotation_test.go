package e2ekubelet

import (
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestRotatedLogs has kubelet rotate the log of a container that goes on writing: each line is in one of the files, and none twice.
func TestRotatedLogs(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *node, hostUsers bool) {
		const count = 20_000
		p := n.run(t, hostUsers, fmt.Sprintf(`
containers:
- {name: main, image: IMAGE, command: [sh, -c, 'i=0; while [ $i -lt %d ]; do seq $i $((i+99)); i=$((i+100)); sleep 0.05; done; sleep infinity']}
`, count))
		p.ready(t)
		eventually(t, "all is written and rotated", func() error {
			lines, files := p.rotated(t)
			if files < 3 || len(lines) != count {
				return fmt.Errorf("%d lines in %d files", len(lines), files)
			}
			for i, line := range lines {
				if line != strconv.Itoa(i) {
					return fmt.Errorf("line %d of the log is %q", i, line)
				}
			}
			return nil
		})
	})
}

// rotated reads all files of the log of the container called main, the oldest first. What kubelet does to them at that moment, or the
// container, can make lines missing or double; it is another one next time.
func (p *pod) rotated(t *testing.T) (lines []string, files int) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(p.node.kubelet.Logs, namespace+"_"+p.name+"_*", "main", "0.log*"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("the pod's logs are %v, %v", paths, err)
	}
	slices.Sort(paths)
	for _, path := range append(paths[1:], paths[0]) { // 0.log is the newest
		text, err := readLog(path)
		if err != nil {
			t.Log(err)
		}
		for line := range strings.Lines(text) {
			if fields := strings.SplitN(line, " ", 4); len(fields) == 4 {
				lines = append(lines, strings.TrimSpace(fields[3]))
			}
		}
	}
	return lines, len(paths)
}

func readLog(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	var from io.Reader = file
	if strings.HasSuffix(path, ".gz") {
		if from, err = gzip.NewReader(file); err != nil {
			return "", fmt.Errorf("read %s: %w", path, err)
		}
	}
	text, err := io.ReadAll(from)
	return string(text), err
}
