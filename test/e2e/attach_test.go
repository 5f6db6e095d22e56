package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"k8s.io/client-go/tools/remotecommand"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// withStdin gives a container a stdin, which ends with the first client that sends an end if once is set.
func withStdin(once bool) nodetest.ContainerOption {
	return func(c *runtimeapi.ContainerConfig) { c.Stdin, c.StdinOnce = true, once }
}

func withTTY(c *runtimeapi.ContainerConfig) { c.Tty = true }

// answering answers each line of its input on both outputs.
const answering = `echo up; while read line; do echo "out $line"; echo "err $line" >&2; done; echo end of input`

// TestAttachAgainAndAgain attaches to a container whose stdin stays open when clients go.
func TestAttachAgainAndAgain(t *testing.T) {
	n := sharedNode(t)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		c := n.RunPod(t, opts...).Run(t, n.Image(t, labimage.Demo), withStdin(false), nodetest.Shell(answering))
		before := takeCensus(t, n)
		eachTransport(t, func(t *testing.T, tr transport) {
			for _, word := range []string{"first", "second"} {
				ctx, leave := context.WithCancel(t.Context())
				in, keys := keyboard(t)
				out, errs := &screen{}, &screen{}
				done := startAttach(ctx, t, n, tr, c, streams{in: in, out: out, errs: errs})
				typeIn(t, keys, word+"\n")
				out.await(t, "out "+word)
				errs.await(t, "err "+word)
				leave()
				if err := await(t, "attach", done); err == nil {
					t.Error("a client that left has no error")
				}
			}
			// The end of its input ends the session and not the container's stdin.
			var out bytes.Buffer
			done := startAttach(t.Context(), t, n, tr, c, streams{in: strings.NewReader("third\n"), out: &out})
			if err := await(t, "attach", done); err != nil {
				t.Error(err)
			}
		})
		if state := c.Status(t).State; state != runtimeapi.ContainerState_CONTAINER_RUNNING {
			t.Errorf("the container is %s after its clients have gone", state)
		}
		log := c.AwaitLog(t, "all answers", func(l nodetest.ContainerLog) bool { return strings.Count(l.Stderr(), "\n") >= 6 })
		want := strings.Repeat("err first\nerr second\nerr third\n", 2)
		if log.Stderr() != want || strings.Contains(log.Stdout(), "end of input") {
			t.Errorf("log has\n%s", log)
		}
		wantCensus(t, n, before)
	})
}

// TestAttachStdinOnce holds that the first client's end is the container's, and that output goes on after it.
func TestAttachStdinOnce(t *testing.T) {
	n := sharedNode(t)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		eachTransport(t, func(t *testing.T, tr transport) {
			c := n.RunPod(t, opts...).Run(t, n.Image(t, labimage.Demo), withStdin(true), nodetest.Shell("sha256sum; sleep 0.3; echo after; exit 6"))
			var out bytes.Buffer
			text := strings.Repeat("0123456789abcdef", 1<<18) // 4 MiB
			if err := await(t, "attach", startAttach(t.Context(), t, n, tr, c, streams{in: strings.NewReader(text), out: &out})); err != nil {
				t.Error(err)
			}
			if code := c.Wait(t); code != 6 {
				t.Errorf("exit code %d", code)
			}
			want := digestOf(text) + "  -\nafter\n"
			if out.String() != want || c.Log(t).Stdout() != want {
				t.Errorf("the client sees %q, the log has %q, want %q", out.String(), c.Log(t).Stdout(), want)
			}
		})
	})
}

// TestAttachTerminal types into a container's terminal and resizes it.
func TestAttachTerminal(t *testing.T) {
	n := sharedNode(t)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		eachTransport(t, func(t *testing.T, tr transport) {
			c := n.RunPod(t, opts...).Run(t, n.Image(t, labimage.Demo), withStdin(false), withTTY,
				nodetest.Shell(`while :; do read -t 0.2 word && { echo "read $word" >&2; exit 4; }; echo "size $(stty size)"; done`))
			in, keys := keyboard(t)
			out, sizes := &screen{}, make(resizes)
			defer close(sizes)
			done := startAttach(t.Context(), t, n, tr, c, streams{in: in, out: out, tty: true, sizes: sizes})
			for _, size := range []remotecommand.TerminalSize{{Width: 81, Height: 25}, {Width: 100, Height: 40}, {Width: 7, Height: 3}} {
				sizes <- size
				out.await(t, fmt.Sprintf("size %d %d\r\n", size.Height, size.Width))
			}
			typeIn(t, keys, "typed\n")
			if err := await(t, "attach", done); err != nil {
				t.Error(err)
			}
			if code := c.Wait(t); code != 4 {
				t.Errorf("exit code %d", code)
			}
			if got := out.String(); !strings.Contains(got, "read typed\r\n") {
				t.Errorf("the client sees %q", got)
			}
			log := c.Log(t)
			if !strings.Contains(log.Stdout(), "read typed\n") || log.Stderr() != "" {
				t.Errorf("a terminal's log has stdout alone, without carriage returns; it has\n%s", log)
			}
		})
	})
}

// TestAttachOfSeveralClients holds that all see the same, one that attached before the first output included.
func TestAttachOfSeveralClients(t *testing.T) {
	const clients = 6
	n := sharedNode(t)
	dir := volume(t, n)
	c := n.RunPod(t).Run(t, n.Image(t, labimage.Demo), nodetest.Mount(dir, "/vol"),
		nodetest.Shell("while [ ! -e /vol/go ]; do sleep 0.05; done; i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; sleep 0.5; exit 5"))
	before := takeCensus(t, n)
	outputs, ends := make([]bytes.Buffer, clients), make([]<-chan error, clients)
	for i := range clients {
		ends[i] = startAttach(t.Context(), t, n, transports[i%len(transports)], c, streams{out: &outputs[i]})
	}
	time.Sleep(500 * time.Millisecond) // the URLs are given out before the clients are there
	write(t, dir+"/go", "", 0, 0)
	for i, done := range ends {
		if err := await(t, "attach", done); err != nil {
			t.Errorf("client %d: %v", i, err)
		}
	}
	if code := c.Wait(t); code != 5 {
		t.Errorf("exit code %d", code)
	}
	want := c.Log(t).Stdout()
	if strings.Count(want, "\n") != 2000 {
		t.Errorf("the log has %d lines", strings.Count(want, "\n"))
	}
	for i := range outputs {
		if outputs[i].String() != want {
			t.Errorf("client %d sees %d bytes, the log has %d", i, outputs[i].Len(), len(want))
		}
	}
	wantCensus(t, n, before)
}

// TestSlowAttachedClientStopsNobody attaches a client that takes nothing beside one that does.
func TestSlowAttachedClientStopsNobody(t *testing.T) {
	const count = 3_000_000 // lines of 8 bytes: 24 MB, more than pipes, queues and sockets hold
	n := sharedNode(t)
	eachTransport(t, func(t *testing.T, tr transport) {
		dir := volume(t, n)
		c := n.RunPod(t).Run(t, n.Image(t, labimage.Demo), nodetest.Mount(dir, "/vol"),
			nodetest.Shell(fmt.Sprintf("while [ ! -e /vol/go ]; do sleep 0.05; done; seq 1000000 %d; sleep 1", 1_000_000+count-1)))
		before := takeCensus(t, n)
		slow := &slowReader{goOn: make(chan struct{})}
		ctx, leave := context.WithCancel(t.Context())
		stuck := startAttach(ctx, t, n, tr, c, streams{out: slow})
		var good bytes.Buffer
		done := startAttach(t.Context(), t, n, tr, c, streams{out: &good})
		time.Sleep(500 * time.Millisecond)
		write(t, dir+"/go", "", 0, 0)
		if err := await(t, "the client that reads", done); err != nil {
			t.Error(err)
		}
		if code := c.Wait(t); code != 0 {
			t.Errorf("exit code %d", code)
		}
		log := c.Log(t).Stdout()
		if got := strings.Count(log, "\n"); got != count {
			t.Errorf("the log has %d lines, want %d", got, count)
		}
		if good.String() != log {
			t.Errorf("the client that reads has %d bytes, the log %d", good.Len(), len(log))
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

func TestAttachRefusals(t *testing.T) {
	n := sharedNode(t)
	ask := func(id string) error {
		_, err := n.Runtime.Attach(t.Context(), &runtimeapi.AttachRequest{ContainerId: id, Stdout: true})
		return err
	}
	wantError(t, ask("unknown"), codes.NotFound, "unknown")
	pod := n.RunPod(t)
	c := pod.Create(t, n.Image(t, labimage.Demo), nodetest.Command("sleep", "100000"))
	wantError(t, ask(c.ID), codes.FailedPrecondition, "created")
	c.Start(t)
	_, err := n.Runtime.Attach(t.Context(), &runtimeapi.AttachRequest{ContainerId: c.ID})
	wantError(t, err, codes.InvalidArgument, "stdout")
	resp, err := n.Runtime.Attach(t.Context(), &runtimeapi.AttachRequest{ContainerId: c.ID, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	c.Stop(t, 0)
	wantError(t, ask(c.ID), codes.FailedPrecondition, "exited")
	s := streams{out: io.Discard}
	err = await(t, "attach", stream(t.Context(), t, transports[0], reach(t, n, resp.Url), s))
	if err == nil || !strings.Contains(err.Error(), "exited") {
		t.Errorf("attach whose container stopped after the URL was given out: %v", err)
	}
}

// TestAttachEndsWithItsPod removes pods under their clients.
func TestAttachEndsWithItsPod(t *testing.T) {
	n := sharedNode(t)
	before := takeCensus(t, n)
	eachTransport(t, func(t *testing.T, tr transport) {
		pod := n.RunPod(t)
		c := pod.Run(t, n.Image(t, labimage.Demo), withStdin(false), nodetest.Shell(answering))
		in, keys := keyboard(t)
		out := &screen{}
		done := startAttach(t.Context(), t, n, tr, c, streams{in: in, out: out})
		typeIn(t, keys, "word\n")
		out.await(t, "out word")
		pod.Remove(t)
		if err := await(t, "attach", done); err != nil {
			t.Errorf("client of a container that ended: %v", err)
		}
	})
	wantCensus(t, n, before)
}
