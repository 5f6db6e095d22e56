package nodetest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"
)

// LogLine is one line of a CRI log file.
type LogLine struct {
	Time    time.Time
	Stream  string // "stdout" or "stderr"
	Partial bool   // the line goes on in the next one of its stream
	Text    string
}

// ContainerLog is a container's whole log.
type ContainerLog []LogLine

// Stdout is what the container wrote to stdout.
func (l ContainerLog) Stdout() string { return l.stream("stdout") }

// Stderr is what the container wrote to stderr.
func (l ContainerLog) Stderr() string { return l.stream("stderr") }

func (l ContainerLog) stream(name string) string {
	var text strings.Builder
	for _, line := range l {
		if line.Stream != name {
			continue
		}
		text.WriteString(line.Text)
		if !line.Partial {
			text.WriteByte('\n')
		}
	}
	return text.String()
}

func (l ContainerLog) String() string {
	var text strings.Builder
	for _, line := range l {
		text.WriteString(line.Stream + ": " + line.Text + "\n")
	}
	return text.String()
}

// LogPath is the absolute path of the container's log file.
func (c *Container) LogPath() string { return c.pod.logPath(c.Config.LogPath) }

// Log reads and parses the container's log; a line that is not in CRI's format fails the test.
func (c *Container) Log(t testing.TB) ContainerLog {
	t.Helper()
	return ReadLog(t, c.LogPath())
}

// ReadLog parses a CRI log file: "<RFC 3339 time> <stream> <P or F> <text>".
func ReadLog(t testing.TB, path string) ContainerLog {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("read container log: %v", err)
	}
	log, err := parseLog(string(content))
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return log
}

func parseLog(content string) (ContainerLog, error) {
	var log ContainerLog
	for text := range strings.Lines(content) {
		line, ok := parseLogLine(strings.TrimSuffix(text, "\n"))
		if !ok || !strings.HasSuffix(text, "\n") {
			return nil, fmt.Errorf("%q is no line of CRI's log format", text)
		}
		log = append(log, line)
	}
	return log, nil
}

func parseLogLine(text string) (LogLine, bool) {
	fields := strings.SplitN(text, " ", 4)
	if len(fields) != 4 {
		return LogLine{}, false
	}
	at, err := time.Parse(time.RFC3339Nano, fields[0])
	stream := fields[1] == "stdout" || fields[1] == "stderr"
	// Tags are separated by colons; the first says whether the line is whole.
	tag, _, _ := strings.Cut(fields[2], ":")
	if err != nil || !stream || tag != "P" && tag != "F" {
		return LogLine{}, false
	}
	return LogLine{Time: at, Stream: fields[1], Partial: tag == "P", Text: fields[3]}, true
}

// AwaitLog waits until the whole lines of the log satisfy want and returns them.
func (c *Container) AwaitLog(t testing.TB, what string, want func(ContainerLog) bool) ContainerLog {
	t.Helper()
	deadline := time.Now().Add(callTimeout)
	for {
		content, err := os.ReadFile(c.LogPath())
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("read container log: %v", err)
		}
		// The last line may be in the middle of being written.
		whole := string(content[:bytes.LastIndexByte(content, '\n')+1])
		log, err := parseLog(whole)
		if err != nil {
			t.Fatalf("%s: %v", c.LogPath(), err)
		}
		if want(log) {
			return log
		}
		if time.Now().After(deadline) {
			t.Fatalf("the log of %s has not %s after %s:\n%s", c.Config.Metadata.Name, what, callTimeout, log)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
