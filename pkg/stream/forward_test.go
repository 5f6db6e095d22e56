package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/streaming/pkg/httpstream"
)

// serve accepts connections on a loopback port until the test ends.
func serve(t *testing.T, handle func(*net.TCPConn)) uint16 {
	t.Helper()
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, l, handle)
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

func serveOn(t *testing.T, l *net.TCPListener, handle func(*net.TCPConn)) {
	t.Helper()
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.AcceptTCP()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				handle(conn)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		running.Wait()
	})
}

func echo(c *net.TCPConn) {
	_, _ = io.Copy(c, c)
	_ = c.CloseWrite()
}

// spdyLike is a client stream with the ends of a SPDY stream: Close is a half-close,
// Reset ends reading.
type spdyLike struct {
	*net.TCPConn
}

func (s spdyLike) Close() error { return s.CloseWrite() }
func (s spdyLike) Reset() error { return s.TCPConn.Close() }

// newClient returns a client's two ends.
func newClient(t *testing.T) (server spdyLike, client *net.TCPConn) {
	t.Helper()
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := net.DialTCP("tcp4", nil, l.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = near.Close(), far.Close() })
	return spdyLike{far}, near
}

func startForward(ctx context.Context, t *testing.T, port uint16) (client *net.TCPConn, done <-chan error) {
	t.Helper()
	return startLingering(ctx, t, port, 200*time.Millisecond)
}

// startLingering is startForward with another time in which a client has to send something once the pod has ended.
func startLingering(ctx context.Context, t *testing.T, port uint16, linger time.Duration) (client *net.TCPConn, done <-chan error) {
	t.Helper()
	server, client := newClient(t)
	pod, err := dialPod(ctx, "", port)
	if err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	s := &splice{client: server, pod: pod, linger: linger, probe: 50 * time.Millisecond}
	go func() { result <- s.run(ctx) }()
	return client, result
}

func waitForward(t *testing.T, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("forwarding did not end")
		return nil
	}
}

// A client that has finished sending gets an answer that takes longer than any probe.
func TestForwardClientHalfClose(t *testing.T) {
	port := serve(t, func(c *net.TCPConn) {
		got, _ := io.ReadAll(c)
		time.Sleep(300 * time.Millisecond)
		_, _ = fmt.Fprintf(c, "got %d", len(got))
	})
	client, done := startForward(t.Context(), t, port)
	_, _ = client.Write(make([]byte, 1<<20))
	_ = client.CloseWrite()
	if got, err := io.ReadAll(client); err != nil || string(got) != "got 1048576" {
		t.Errorf("answer %q, %v", got, err)
	}
	if err := waitForward(t, done); err != nil {
		t.Error(err)
	}
}

// A pod that has finished sending still gets what the client sends.
func TestForwardPodHalfClose(t *testing.T) {
	got := make(chan int, 1)
	port := serve(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "banner")
		_ = c.CloseWrite()
		n, _ := io.Copy(io.Discard, c)
		got <- int(n)
	})
	// Each pause is far below it, for machines halt for a second or two.
	const linger = 4 * time.Second
	client, done := startLingering(t.Context(), t, port, linger)
	if banner, err := io.ReadAll(client); err != nil || string(banner) != "banner" {
		t.Errorf("banner %q, %v", banner, err)
	}
	for range 5 {
		_, _ = client.Write(make([]byte, 1000))
		time.Sleep(linger/5 + 50*time.Millisecond) // longer than it in all
	}
	_ = client.CloseWrite()
	if n := <-got; n != 5000 {
		t.Errorf("pod got %d bytes", n)
	}
	if err := waitForward(t, done); err != nil {
		t.Error(err)
	}
}

func TestForwardEnds(t *testing.T) {
	silent := func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) }
	// deaf does not notice the end of its input.
	deaf := func(c *net.TCPConn) {
		silent(c)
		for start := time.Now(); time.Since(start) < 20*time.Second; time.Sleep(10 * time.Millisecond) {
			if _, err := c.Write([]byte{0}); err != nil {
				return
			}
		}
	}
	for _, tc := range []struct {
		name string
		pod  func(*net.TCPConn)
		act  func(client *net.TCPConn, cancel func())
		want error
	}{
		{name: "context", pod: silent, act: func(_ *net.TCPConn, cancel func()) { cancel() }},
		{name: "client breaks", pod: deaf, act: func(c *net.TCPConn, _ func()) {
			_ = c.SetLinger(0)
			_ = c.Close()
		}},
		{name: "client forgets to end", pod: func(c *net.TCPConn) { _ = c.CloseWrite(); silent(c) }, act: func(*net.TCPConn, func()) {}},
		{name: "pod breaks", pod: func(c *net.TCPConn) {
			_, _ = c.Read(make([]byte, 1))
			_ = c.SetLinger(0)
		}, act: func(c *net.TCPConn, _ func()) { _, _ = c.Write([]byte{0}) }, want: syscall.ECONNRESET},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			client, done := startForward(ctx, t, serve(t, tc.pod))
			tc.act(client, cancel)
			if err := waitForward(t, done); !errors.Is(err, tc.want) {
				t.Errorf("run: %v, want %v", err, tc.want)
			}
		})
	}
}

func TestForwardPortRefused(t *testing.T) {
	server, client := newClient(t)
	// The port of a connection is nobody else's to listen on.
	_, other := newClient(t)
	port := uint16(other.LocalAddr().(*net.TCPAddr).Port)
	err := ForwardPort(t.Context(), "", port, server)
	if !errors.Is(err, syscall.ECONNREFUSED) || !strings.Contains(err.Error(), "[::1]") {
		t.Errorf("ForwardPort: %v, want a refusal by both families", err)
	}
	if _, err := io.ReadAll(client); err != nil {
		t.Errorf("client is left open: %v", err)
	}
	if err := ForwardPort(t.Context(), "/proc/self/ns/none", port, server); err == nil || !strings.Contains(err.Error(), "/proc/self/ns/none") {
		t.Errorf("ForwardPort into no namespace: %v", err)
	}
}

// TestServerPortForward uses kubectl's own client: several ports, many connections at
// once over one session.
func TestServerPortForward(t *testing.T) {
	for name, dial := range dialers {
		t.Run(name, func(t *testing.T) { testPortForward(t, dial) })
	}
}

// dialers are the ways in which kubectl forwards ports.
var dialers = map[string]func(*url.URL) (httpstream.Dialer, error){
	"SPDY": func(u *url.URL) (httpstream.Dialer, error) {
		transport, upgrader, err := spdy.RoundTripperFor(&restConfig)
		return spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, u), err
	},
	"WebSocket": func(u *url.URL) (httpstream.Dialer, error) {
		return portforward.NewSPDYOverWebsocketDialerForStreaming(u, &restConfig)
	},
}

func testPortForward(t *testing.T, dial func(*url.URL) (httpstream.Dialer, error)) {
	const conns = 50
	ports := map[uint16]uint16{}
	s := startServer(t, runner{forward: func(ctx context.Context, id string, port uint16, client io.ReadWriteCloser) error {
		if id != "s1" {
			return fmt.Errorf("sandbox %q", id)
		}
		return ForwardPort(ctx, "", ports[port], client)
	}})
	for _, p := range []uint16{80, 8080} {
		ports[p] = serve(t, func(c *net.TCPConn) {
			got, _ := io.ReadAll(c)
			_, _ = fmt.Fprintf(c, "%d:%s", p, bytes.ToUpper(got))
		})
	}
	local := kubectlForward(t, s, dial, []string{"0:80", "0:8080", "0:9"})
	var all sync.WaitGroup
	for i := range conns {
		p := local[i%2]
		all.Go(func() {
			text := strings.Repeat(fmt.Sprintf("conn %d ", i), 5000)
			want := fmt.Sprintf("%d:%s", p.Remote, strings.ToUpper(text))
			if got, err := roundTrip(p.Local, text); err != nil || got != want {
				t.Errorf("connection %d: %d bytes, %v", i, len(got), err)
			}
		})
	}
	all.Wait()
	if got, err := roundTrip(local[2].Local, "x"); err == nil && got != "" { // ports[9] is 0: refused
		t.Errorf("a port that nobody serves answered %q", got)
	}
}

func kubectlForward(t *testing.T, s *Server, dial func(*url.URL) (httpstream.Dialer, error), ports []string) []portforward.ForwardedPort {
	t.Helper()
	resp, err := s.GetPortForward(&runtimeapi.PortForwardRequest{PodSandboxId: "s1"})
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(resp.GetUrl())
	if err != nil {
		t.Fatal(err)
	}
	dialer, err := dial(u)
	if err != nil {
		t.Fatal(err)
	}
	stop, ready := make(chan struct{}), make(chan struct{})
	f, err := portforward.NewOnAddressesForStreaming(dialer, []string{"127.0.0.1"}, ports, stop, ready, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- f.ForwardPorts() }()
	t.Cleanup(func() {
		close(stop)
		<-done
	})
	select {
	case <-ready:
	case err := <-done:
		done <- err
		t.Fatalf("forwarding: %v", err)
	}
	got, err := f.GetPorts()
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func roundTrip(port uint16, text string) (string, error) {
	c, err := net.DialTCP("tcp4", nil, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(port)})
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := io.WriteString(c, text); err != nil {
		return "", err
	}
	if err := c.CloseWrite(); err != nil {
		return "", err
	}
	got, err := io.ReadAll(c)
	return string(got), err
}
