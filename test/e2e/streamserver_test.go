package e2e

import (
	"net/url"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labnode"
)

// TestStreamingServerFollowsItsConfiguration holds the address, and that a connection on which nothing
// happens is closed. client-go's SPDY clients send a ping every five seconds, which counts.
func TestStreamingServerFollowsItsConfiguration(t *testing.T) {
	t.Parallel()
	const address, idle, words = "127.0.0.1:17710", 3 * time.Second, 9
	n := ownNode(t, labnode.Options{Daemon: labnode.DaemonOptions{Extra: "streaming: {listen: " + address + ", idleTimeout: " + idle.String() + "}"}})
	c := sleeper(t, n)
	before := takeCensus(t, n)
	resp, err := n.Runtime.Exec(t.Context(), &runtimeapi.ExecRequest{ContainerId: c.ID, Cmd: []string{"cat"}, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	if u, err := url.Parse(resp.Url); err != nil || u.Scheme != "http" || u.Host != address {
		t.Errorf("URL is %q, %v; want one of %s", resp.Url, err, address)
	}
	eachTransport(t, func(t *testing.T, tr transport) {
		in, keys := keyboard(t)
		out, start := &screen{}, time.Now()
		done := startExec(t.Context(), t, n, tr, c, streams{in: in, out: out}, "cat")
		for range words { // a connection that is used stays open
			time.Sleep(idle / 6)
			typeIn(t, keys, "word\n")
		}
		err := await(t, "exec", done)
		if took := time.Since(start); took < words*idle/6+idle || took > 20*time.Second {
			t.Errorf("the connection ended after %s: %v", took, err)
		}
		if got := strings.Count(out.String(), "word\n"); got != words {
			t.Errorf("%d words of %d came back", got, words)
		}
	})
	wantCensus(t, n, before)
}
