package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

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

// waiting tells clients that they are attached until /vol/go is there.
const waiting = "while [ ! -e /vol/go ]; do echo waiting; sleep 0.05; done; "

// from is the part of a text that begins with the first of these words.
func from(t *testing.T, text, words string) string {
	t.Helper()
	i := strings.Index(text, words)
	if i < 0 {
		t.Fatalf("there is no %q in %d bytes", words, len(text))
	}
	return text[i:]
}

// TestAttachOfSeveralClients holds that all see the same.
func TestAttachOfSeveralClients(t *testing.T) {
	const clients = 6
	n := sharedNode(t)
	dir := volume(t, n)
	c := n.RunPod(t).Run(t, n.Image(t, labimage.Demo), nodetest.Mount(dir, "/vol"),
		nodetest.Shell(waiting+"i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; sleep 0.5; exit 5"))
	before := takeCensus(t, n)
	outputs, ends := make([]screen, clients), make([]<-chan error, clients)
	for i := range clients {
		ends[i] = startAttach(t.Context(), t, n, transports[i%len(transports)], c, streams{out: &outputs[i]})
	}
	for i := range outputs {
		outputs[i].await(t, "waiting")
	}
	write(t, dir+"/go", "", 0, 0)
	for i, done := range ends {
		if err := await(t, "attach", done); err != nil {
			t.Errorf("client %d: %v", i, err)
		}
	}
	if code := c.Wait(t); code != 5 {
		t.Errorf("exit code %d", code)
	}
	want := from(t, c.Log(t).Stdout(), "line 0\n")
	if strings.Count(want, "\n") != 2000 {
		t.Errorf("the log has %d lines", strings.Count(want, "\n"))
	}
	for i := range outputs {
		if got := from(t, outputs[i].String(), "line 0\n"); got != want {
			t.Errorf("client %d sees %d bytes, the log has %d", i, len(got), len(want))
		}
	}
	wantCensus(t, n, before)
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
	before := censusAfterAPod(t, n)
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
