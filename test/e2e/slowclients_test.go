package e2e

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// slowReader is a client that takes nothing until it is let go.
type slowReader struct {
	goOn    chan struct{}
	reached chan struct{} // closed when there is something to take
	once    sync.Once
	took    int
}

func newSlowReader() *slowReader {
	return &slowReader{goOn: make(chan struct{}), reached: make(chan struct{})}
}

func (s *slowReader) Write(p []byte) (int, error) {
	s.once.Do(func() { close(s.reached) })
	<-s.goOn
	s.took += len(p)
	return len(p), nil
}

// TestSlowExecClientHoldsItsCommandBack holds that output waits in the command's pipe and not in the daemon.
func TestSlowExecClientHoldsItsCommandBack(t *testing.T) {
	const pieces, pieceBytes = 1024, 64 << 10 // 64 MiB
	n := sharedNode(t)
	c := sleeper(t, n)
	eachTransport(t, func(t *testing.T, tr transport) {
		client := newSlowReader()
		rss := metric(t, n, "process_resident_memory_bytes")
		done := startExec(t.Context(), t, n, tr, c, streams{out: client}, "sh", "-c",
			fmt.Sprintf("i=0; while [ $i -lt %d ]; do head -c %d /dev/zero; i=$((i+1)); echo $i > /tmp/progress; done", pieces, pieceBytes))
		progress := func() int {
			text := c.Exec(t, "sh", "-c", "cat /tmp/progress || echo 0")
			i, _ := strconv.Atoi(text) // empty while it is written
			return i
		}
		taken := awaitSteady(t, "the command is held back", progress)
		grown := metric(t, n, "process_resident_memory_bytes") - rss
		if held := taken * pieceBytes; held > largeBytes/2 || grown > 32<<20 {
			t.Errorf("%d bytes are on their way to a client that takes nothing; the daemon grew by %.0f bytes", held, grown)
		}
		t.Logf("held back after %d KiB, the daemon grew by %.0f KiB", taken*pieceBytes>>10, grown/1024)
		close(client.goOn)
		if err := await(t, "exec", done); err != nil || client.took != pieces*pieceBytes {
			t.Errorf("the client got %d bytes, want %d; %v", client.took, pieces*pieceBytes, err)
		}
	})
}

// TestSlowAttachedClientStopsNobody attaches a client that takes nothing beside one that does.
func TestSlowAttachedClientStopsNobody(t *testing.T) {
	const count = 3_000_000 // lines of 8 bytes: 24 MB, more than pipes, queues and sockets hold
	n := sharedNode(t)
	eachTransport(t, func(t *testing.T, tr transport) {
		dir := volume(t, n)
		c := n.RunPod(t).Run(t, n.Image(t, labimage.Demo), nodetest.Mount(dir, "/vol"),
			nodetest.Shell(fmt.Sprintf(waiting+"seq 1000000 %d; sleep 1", 1_000_000+count-1)))
		before := takeCensus(t, n)
		slow := newSlowReader()
		ctx, leave := context.WithCancel(t.Context())
		stuck := startAttach(ctx, t, n, tr, c, streams{out: slow})
		good := &screen{}
		done := startAttach(t.Context(), t, n, tr, c, streams{out: good})
		<-slow.reached
		good.await(t, "waiting")
		write(t, dir+"/go", "", 0, 0)
		if err := await(t, "the client that reads", done); err != nil {
			t.Error(err)
		}
		if code := c.Wait(t); code != 0 {
			t.Errorf("exit code %d", code)
		}
		log := from(t, c.Log(t).Stdout(), "1000000\n")
		if got := strings.Count(log, "\n"); got != count {
			t.Errorf("the log has %d lines, want %d", got, count)
		}
		if got := from(t, good.String(), "1000000\n"); got != log {
			t.Errorf("the client that reads has %d bytes, the log %d", len(got), len(log))
		}
		close(slow.goOn)
		leave()
		if err := await(t, "the client that takes nothing", stuck); err == nil {
			t.Error("a client that was cut off has no error")
		}
		if slow.took >= len(log) {
			t.Errorf("the client that took nothing has %d bytes of %d: it was not slow", slow.took, len(log))
		}
		wantCensus(t, n, before)
	})
}
