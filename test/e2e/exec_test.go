package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
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

// TestExecCarriesAllStreams holds the three streams, the end of stdin while output goes on, and the exit code.
func TestExecCarriesAllStreams(t *testing.T) {
	n := sharedNode(t)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		c := sleeper(t, n, opts...)
		before := takeCensus(t, n)
		eachTransport(t, func(t *testing.T, tr transport) {
			text := strings.Repeat("line of the input\n", 50_000)
			var out, errs bytes.Buffer
			done := startExec(t.Context(), t, n, tr, c, streams{in: strings.NewReader(text), out: &out, errs: &errs},
				"sh", "-c", "cat; sleep 0.3; echo after the end; echo problem >&2; exit 3")
			if code := exitCode(t, await(t, "exec", done)); code != 3 {
				t.Errorf("exit code %d, want 3", code)
			}
			if out.String() != text+"after the end\n" || errs.String() != "problem\n" {
				t.Errorf("%d bytes of stdout, want %d; stderr %q", out.Len(), len(text)+len("after the end\n"), errs.String())
			}
			var only bytes.Buffer
			done = startExec(t.Context(), t, n, tr, c, streams{errs: &only}, "sh", "-c", "echo unseen; echo seen >&2")
			if err := await(t, "exec without stdout", done); err != nil || only.String() != "seen\n" {
				t.Errorf("exec that asks for stderr alone: %q, %v", only.String(), err)
			}
		})
		wantCensus(t, n, before)
	})
}

// TestExecTerminalFollowsItsClient resizes a terminal several times and types into it.
func TestExecTerminalFollowsItsClient(t *testing.T) {
	n := sharedNode(t)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		c := sleeper(t, n, opts...)
		eachTransport(t, func(t *testing.T, tr transport) {
			in, keys := keyboard(t)
			out, sizes := &screen{}, make(resizes, 1)
			defer close(sizes)
			sizes <- remotecommand.TerminalSize{Width: 81, Height: 25}
			done := startExec(t.Context(), t, n, tr, c, streams{in: in, out: out, tty: true, sizes: sizes},
				"sh", "-c", `while :; do read -t 0.2 word && { echo "read $word"; exit 4; }; echo "size $(stty size)"; done`)
			out.await(t, "size 25 81")
			for _, size := range []remotecommand.TerminalSize{{Width: 100, Height: 40}, {Width: 7, Height: 3}, {Width: 200, Height: 60}} {
				sizes <- size
				out.await(t, fmt.Sprintf("size %d %d", size.Height, size.Width))
			}
			typeIn(t, keys, "typed\n")
			if code := exitCode(t, await(t, "exec", done)); code != 4 {
				t.Errorf("exit code %d, want 4", code)
			}
			if got := out.String(); !strings.Contains(got, "typed\r\n") || !strings.Contains(got, "read typed\r\n") {
				t.Errorf("a terminal echoes and ends lines with both characters, the client sees %q", got)
			}
		})
	})
}

// largeBytes is how much goes through one exec.
const largeBytes = 64 << 20

func TestExecCarriesLargeData(t *testing.T) {
	n := sharedNode(t)
	c := sleeper(t, n)
	digest := strings.Fields(c.Exec(t, "sh", "-c", fmt.Sprintf("head -c %d /dev/urandom > /tmp/large; sha256sum /tmp/large", largeBytes)))[0]
	eachTransport(t, func(t *testing.T, tr transport) {
		start, sum := time.Now(), sha256.New()
		if err := await(t, "exec", startExec(t.Context(), t, n, tr, c, streams{out: sum}, "cat", "/tmp/large")); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%x", sum.Sum(nil)); got != digest {
			t.Errorf("output has the digest %s, want %s", got, digest)
		}
		t.Logf("64 MiB of output in %s", time.Since(start))

		sum.Reset()
		start = time.Now()
		var out bytes.Buffer
		in := io.TeeReader(io.LimitReader(rand.Reader, largeBytes), sum)
		if err := await(t, "exec", startExec(t.Context(), t, n, tr, c, streams{in: in, out: &out}, "sha256sum")); err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("%x", sum.Sum(nil)); !strings.HasPrefix(out.String(), want) {
			t.Errorf("input has the digest %q, want %s", out.String(), want)
		}
		t.Logf("64 MiB of input in %s", time.Since(start))
	})
}

func TestManyExecsAtOnce(t *testing.T) {
	const clients = 50
	n := sharedNode(t)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		c := sleeper(t, n, opts...)
		before := takeCensus(t, n)
		eachTransport(t, func(t *testing.T, tr transport) {
			type result struct {
				out, errs bytes.Buffer
				done      <-chan error
			}
			results := make([]*result, clients)
			for i := range results {
				r := &result{}
				text := strings.Repeat(fmt.Sprintf("client %d\n", i), 1000)
				r.done = startExec(t.Context(), t, n, tr, c, streams{in: strings.NewReader(text), out: &r.out, errs: &r.errs},
					"sh", "-c", fmt.Sprintf("echo err %d >&2; cat; exit %d", i, i))
				results[i] = r
			}
			for i, r := range results {
				want := strings.Repeat(fmt.Sprintf("client %d\n", i), 1000)
				if code := exitCode(t, await(t, "exec", r.done)); code != i {
					t.Errorf("client %d: exit code %d", i, code)
				}
				if r.out.String() != want || r.errs.String() != fmt.Sprintf("err %d\n", i) {
					t.Errorf("client %d: %d bytes of stdout, want %d; stderr %q", i, r.out.Len(), len(want), r.errs.String())
				}
			}
		})
		wantCensus(t, n, before)
	})
}

// TestExecOutlivesItsClient: as in containerd, the command goes on without its client, whose stdin ends and
// whose output is thrown away.
func TestExecOutlivesItsClient(t *testing.T) {
	n := sharedNode(t)
	c := sleeper(t, n)
	before := takeCensus(t, n)
	eachTransport(t, func(t *testing.T, tr transport) {
		for _, script := range []string{
			"cat; yes | head -c 10000000; echo end of input > /tmp/left; sleep 7301",
			"yes; echo never > /tmp/left",
		} {
			c.Exec(t, "rm", "-f", "/tmp/left")
			ctx, leave := context.WithCancel(t.Context())
			in, keys := keyboard(t)
			out := &screen{}
			done := startExec(ctx, t, n, tr, c, streams{in: in, out: out}, "sh", "-c", "echo $$; "+script)
			if strings.HasPrefix(script, "cat") {
				typeIn(t, keys, "hello\n")
				out.await(t, "hello")
			} else {
				out.await(t, "y\ny")
			}
			pid := lines(out.String())[0]
			leave()
			if err := await(t, "exec", done); err == nil {
				t.Error("a client that left has no error")
			}
			if strings.HasPrefix(script, "cat") {
				eventually(t, "the command sees the end of its input", func() bool {
					resp, err := c.TryExec(t.Context(), "cat", "/tmp/left")
					return err == nil && resp.ExitCode == 0
				})
			}
			time.Sleep(300 * time.Millisecond)
			c.Exec(t, "sh", "-c", fmt.Sprintf("kill -0 %s && kill -9 %s && { killall -9 yes || true; }", pid, pid))
		}
	})
	wantCensus(t, n, before)
}

func TestExecRefusals(t *testing.T) {
	n := sharedNode(t)
	c := sleeper(t, n)
	ask := func(id string, cmd ...string) error {
		_, err := n.Runtime.Exec(t.Context(), &runtimeapi.ExecRequest{ContainerId: id, Cmd: cmd, Stdout: true})
		return err
	}
	wantError(t, ask("unknown", "true"), codes.NotFound, "unknown")
	wantError(t, ask(c.ID), codes.InvalidArgument, "cmd")
	_, err := n.Runtime.Exec(t.Context(), &runtimeapi.ExecRequest{ContainerId: c.ID, Cmd: []string{"true"}})
	wantError(t, err, codes.InvalidArgument, "stdout")
	_, err = n.Runtime.Exec(t.Context(), &runtimeapi.ExecRequest{ContainerId: c.ID, Cmd: []string{"true"}, Stdout: true, Stderr: true, Tty: true})
	wantError(t, err, codes.InvalidArgument, "tty")
	created := n.RunPod(t).Create(t, n.Image(t, labimage.Demo))
	wantError(t, ask(created.ID, "true"), codes.FailedPrecondition, "created")

	eachTransport(t, func(t *testing.T, tr transport) {
		err := await(t, "exec", startExec(t.Context(), t, n, tr, c, streams{out: io.Discard}, "/no/such/command"))
		if err == nil || !strings.Contains(err.Error(), "/no/such/command") || !strings.Contains(err.Error(), "no such file") {
			t.Errorf("exec of a missing command: %v", err)
		}
		u := execURL(t, n, c, streams{out: io.Discard}, "true")
		if err := await(t, "exec", stream(t.Context(), t, tr, u, streams{out: io.Discard})); err != nil {
			t.Fatal(err)
		}
		if err := await(t, "exec", stream(t.Context(), t, tr, u, streams{out: io.Discard})); err == nil || !strings.Contains(err.Error(), "404") {
			t.Errorf("a URL that was used before: %v, want 404", err)
		}
		other := sleeper(t, n)
		u = execURL(t, n, other, streams{out: io.Discard}, "true")
		other.Stop(t, 0)
		err = await(t, "exec", stream(t.Context(), t, tr, u, streams{out: io.Discard}))
		if err == nil || !strings.Contains(err.Error(), "exited") {
			t.Errorf("exec whose container stopped after the URL was given out: %v", err)
		}
		wantError(t, ask(other.ID, "true"), codes.FailedPrecondition, "exited")
	})
}

// TestExecEndsWithItsContainer stops containers and removes pods under clients.
func TestExecEndsWithItsContainer(t *testing.T) {
	n := sharedNode(t)
	before := censusAfterAPod(t, n)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		eachTransport(t, func(t *testing.T, tr transport) {
			pod := n.RunPod(t, opts...)
			c := pod.Run(t, n.Image(t, labimage.Demo), nodetest.Command("sleep", "100000"))
			in, _ := keyboard(t)
			out := &screen{}
			done := startExec(t.Context(), t, n, tr, c, streams{in: in, out: out}, "sh", "-c", "echo here; exec cat")
			out.await(t, "here")
			pod.Remove(t)
			if code := exitCode(t, await(t, "exec", done)); code != 137 {
				t.Errorf("exit code %d, want that of SIGKILL", code)
			}
		})
	})
	wantCensus(t, n, before)
}

// TestExecHasTheContainersCredentials compares an exec'd process with the container's own.
func TestExecHasTheContainersCredentials(t *testing.T) {
	n := sharedNode(t)
	const filter = "^(Uid|Gid|Groups|NoNewPrivs|Seccomp|CapInh|CapPrm|CapEff|CapBnd|CapAmb):"
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		pod := n.RunPod(t, opts...)
		c := pod.Run(t, n.Image(t, labimage.Demo), nodetest.Command("sleep", "100000"), nodetest.User(1000, 1000),
			func(c *runtimeapi.ContainerConfig) {
				c.Linux.SecurityContext.SupplementalGroups = []int64{2000, 3000}
				c.Linux.SecurityContext.NoNewPrivs = true
				c.Linux.SecurityContext.Capabilities = &runtimeapi.Capability{AddCapabilities: []string{"NET_ADMIN"}, DropCapabilities: []string{"CHOWN"}}
			})
		want := c.Exec(t, "grep", "-E", filter, "/proc/1/status")
		for _, part := range []string{"Uid:\t1000", "2000 3000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
			if !strings.Contains(want, part) {
				t.Errorf("the container's own process has no %q:\n%s", part, want)
			}
		}
		if got := c.Exec(t, "grep", "-E", filter, "/proc/self/status"); got != want {
			t.Errorf("ExecSync runs with\n%s\nwant\n%s", got, want)
		}
		eachTransport(t, func(t *testing.T, tr transport) {
			var out bytes.Buffer
			if err := await(t, "exec", startExec(t.Context(), t, n, tr, c, streams{out: &out}, "grep", "-E", filter, "/proc/self/status")); err != nil {
				t.Fatal(err)
			}
			if got := strings.TrimSpace(out.String()); got != want {
				t.Errorf("exec runs with\n%s\nwant\n%s", got, want)
			}
		})
		maps := c.Exec(t, "cat", "/proc/self/uid_map")
		if len(opts) == 0 && fields(maps) != fmt.Sprintf("0 %d 65536", pod.Range(t)) {
			t.Errorf("uid_map in exec is %q", maps)
		}
	})
}
