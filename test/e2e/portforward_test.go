package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"k8s.io/client-go/tools/portforward"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// serving runs a container that serves TCP on an address of the pod.
func serving(t *testing.T, n *nodetest.Node, pod *nodetest.Pod, address, mode string) *nodetest.Container {
	t.Helper()
	c := pod.Run(t, probeImage(t, n), nodetest.Command(probePath, "serve", address, mode))
	c.AwaitLog(t, "begun to listen", func(l nodetest.ContainerLog) bool { return strings.Contains(l.Stderr(), "listening") })
	return c
}

func forwardURL(t *testing.T, n *nodetest.Node, pod *nodetest.Pod) *url.URL {
	t.Helper()
	resp, err := n.Runtime.PortForward(t.Context(), &runtimeapi.PortForwardRequest{PodSandboxId: pod.ID})
	if err != nil {
		t.Fatalf("PortForward: %v", err)
	}
	return reach(t, n, resp.Url)
}

// forward is `kubectl port-forward` until the test ends: it returns the local address of each of the pod's
// ports.
func forward(t *testing.T, n *nodetest.Node, tr transport, pod *nodetest.Pod, ports ...string) (local []string) {
	t.Helper()
	dialer, err := tr.dialer(forwardURL(t, n, pod))
	if err != nil {
		t.Fatal(err)
	}
	for i, port := range ports {
		ports[i] = "0:" + port
	}
	stop, ready, end := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	f, err := portforward.NewOnAddressesForStreaming(dialer, []string{"127.0.0.1"}, ports, stop, ready, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	go func() { end <- f.ForwardPorts() }()
	t.Cleanup(func() {
		close(stop)
		<-end
	})
	select {
	case <-ready:
	case err := <-end:
		end <- err
		t.Fatalf("forward ports: %v", err)
	}
	got, err := f.GetPorts()
	if err != nil {
		t.Fatal(err)
	}
	for _, port := range got {
		local = append(local, fmt.Sprintf("127.0.0.1:%d", port.Local))
	}
	return local
}

// roundTrip sends text, ends its direction, and returns what comes back.
func roundTrip(address, text string) (string, error) {
	conn, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return "", err
	}
	sent := make(chan error, 1)
	go func() {
		_, err := io.WriteString(conn, text)
		if err == nil {
			err = conn.(*net.TCPConn).CloseWrite()
		}
		sent <- err
	}()
	got, err := io.ReadAll(conn)
	if err := <-sent; err != nil {
		return string(got), err
	}
	return string(got), err
}

// TestPortForwardOfManyConnections forwards to servers that listen on the pod's loopback alone, of both
// families, and on all addresses.
func TestPortForwardOfManyConnections(t *testing.T) {
	const connections = 100
	n := sharedNode(t)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		pod := n.RunPod(t, opts...)
		for _, address := range []string{"127.0.0.1:8001", "[::1]:8002", ":8003"} {
			serving(t, n, pod, address, "echo")
		}
		before := takeCensus(t, n)
		eachTransport(t, func(t *testing.T, tr transport) {
			local := forward(t, n, tr, pod, "8001", "8002", "8003")
			var all sync.WaitGroup
			for i := range connections {
				all.Go(func() {
					text := strings.Repeat(fmt.Sprintf("connection %d ", i), 5000)
					if got, err := roundTrip(local[i%len(local)], text); err != nil || got != text {
						t.Errorf("connection %d to %s: %d bytes of %d, %v", i, local[i%len(local)], len(got), len(text), err)
					}
				})
			}
			all.Wait()
		})
		wantCensus(t, n, before)
	})
}

func TestPortForwardCarriesLargeData(t *testing.T) {
	n := sharedNode(t)
	pod := n.RunPod(t)
	serving(t, n, pod, "127.0.0.1:8001", "echo")
	eachTransport(t, func(t *testing.T, tr transport) {
		local := forward(t, n, tr, pod, "8001")
		text, start := strings.Repeat("0123456789abcdef", largeBytes/16), time.Now()
		got, err := roundTrip(local[0], text)
		if err != nil || digestOf(got) != digestOf(text) {
			t.Errorf("%d bytes of %d come back, %v", len(got), len(text), err)
		}
		t.Logf("64 MiB there and back in %s", time.Since(start))
	})
}

// TestPortForwardOfHostNetwork forwards to a pod that shares the node's network.
func TestPortForwardOfHostNetwork(t *testing.T) {
	n := sharedNode(t)
	pod := n.RunPod(t, nodetest.HostNetwork)
	serving(t, n, pod, "127.0.0.1:8101", "echo")
	eachTransport(t, func(t *testing.T, tr transport) {
		local := forward(t, n, tr, pod, "8101")
		if got, err := roundTrip(local[0], "text"); err != nil || got != "text" {
			t.Errorf("%q comes back, %v", got, err)
		}
	})
}

// dialByHand opens a session of port-forward without client-go's forwarder, until the test ends.
func dialByHand(t *testing.T, n *nodetest.Node, tr transport, pod *nodetest.Pod) httpstream.Connection {
	t.Helper()
	dialer, err := tr.dialer(forwardURL(t, n, pod))
	if err != nil {
		t.Fatal(err)
	}
	conn, _, err := dialer.Dial("portforward.k8s.io")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // the server may have closed it
	return conn
}

// connect opens one forwarded connection by hand: client-go's forwarder does not show half-closes.
func connect(t *testing.T, conn httpstream.Connection, request, port string) (data, errs httpstream.Stream) {
	t.Helper()
	for _, s := range []struct {
		kind string
		to   *httpstream.Stream
	}{{"error", &errs}, {"data", &data}} {
		var err error
		*s.to, err = conn.CreateStream(http.Header{"streamType": {s.kind}, "port": {port}, "requestID": {request}})
		if err != nil {
			t.Fatal(err)
		}
	}
	return data, errs
}

// TestPortForwardHalfClose ends one direction and goes on with the other.
func TestPortForwardHalfClose(t *testing.T) {
	n := sharedNode(t)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		pod := n.RunPod(t, opts...)
		greeter := serving(t, n, pod, "127.0.0.1:8001", "greet")
		serving(t, n, pod, "127.0.0.1:8002", "echo")
		before := takeCensus(t, n)
		eachTransport(t, func(t *testing.T, tr transport) {
			conn := dialByHand(t, n, tr, pod)

			data, errs := connect(t, conn, "1", "8001")
			if got, err := io.ReadAll(data); err != nil || string(got) != "hello" {
				t.Errorf("greeting %q, %v", got, err)
			}
			sent := 70_000 + len(tr.name) // tells the two transports apart in the server's log
			typeIn(t, data, strings.Repeat("x", sent))
			_ = data.Close()
			greeter.AwaitLog(t, "got all", func(l nodetest.ContainerLog) bool { return strings.Contains(l.Stderr(), fmt.Sprintf("got %d\n", sent)) })
			if got, err := io.ReadAll(errs); err != nil || len(got) != 0 {
				t.Errorf("error stream has %q, %v", got, err)
			}

			data, errs = connect(t, conn, "2", "8002")
			typeIn(t, data, "ping")
			_ = data.Close()
			if got, err := io.ReadAll(data); err != nil || string(got) != "ping" {
				t.Errorf("echo %q after the end of the input, %v", got, err)
			}
			if got, err := io.ReadAll(errs); err != nil || len(got) != 0 {
				t.Errorf("error stream has %q, %v", got, err)
			}
		})
		wantCensus(t, n, before)
	})
}

// TestPortForwardTellsThatNobodyListens holds the error stream's text, and that the session goes on.
func TestPortForwardTellsThatNobodyListens(t *testing.T) {
	n := sharedNode(t)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		pod := n.RunPod(t, opts...)
		serving(t, n, pod, "127.0.0.1:8001", "echo")
		eachTransport(t, func(t *testing.T, tr transport) {
			conn := dialByHand(t, n, tr, pod)
			data, errs := connect(t, conn, "1", "9")
			got, err := io.ReadAll(errs)
			if err != nil || !strings.Contains(string(got), "port 9") || !strings.Contains(string(got), "refused") {
				t.Errorf("error stream has %q, %v", got, err)
			}
			if got, err := io.ReadAll(data); len(got) != 0 {
				t.Errorf("data stream has %q, %v", got, err)
			}
			data, _ = connect(t, conn, "2", "8001")
			typeIn(t, data, "ping")
			_ = data.Close()
			if got, err := io.ReadAll(data); err != nil || string(got) != "ping" {
				t.Errorf("the next connection brings %q, %v", got, err)
			}
		})
	})
}

// TestPortForwardEndsWithItsPod removes pods while connections are open.
func TestPortForwardEndsWithItsPod(t *testing.T) {
	n := sharedNode(t)
	before := censusAfterAPod(t, n)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		eachTransport(t, func(t *testing.T, tr transport) {
			pod := n.RunPod(t, opts...)
			serving(t, n, pod, "127.0.0.1:8001", "echo")
			local := forward(t, n, tr, pod, "8001")
			conn, err := net.Dial("tcp", local[0])
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			typeIn(t, conn, "ping")
			if _, err := io.ReadFull(conn, make([]byte, 4)); err != nil {
				t.Fatal(err)
			}
			pod.Remove(t)
			if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if n, err := conn.Read(make([]byte, 1)); n != 0 || strings.Contains(fmt.Sprint(err), "timeout") {
				t.Errorf("the connection of a removed pod: %d bytes, %v", n, err)
			}
			if got, err := roundTrip(local[0], "again"); got != "" {
				t.Errorf("a removed pod answers %q, %v", got, err)
			}
		})
	})
	wantCensus(t, n, before)
}

func TestPortForwardRefusals(t *testing.T) {
	n := sharedNode(t)
	pod := n.RunPod(t)
	ask := func(id string, ports ...int32) error {
		_, err := n.Runtime.PortForward(t.Context(), &runtimeapi.PortForwardRequest{PodSandboxId: id, Port: ports})
		return err
	}
	wantError(t, ask("unknown"), codes.NotFound, "unknown")
	for _, port := range []int32{0, -1, 65536} {
		wantError(t, ask(pod.ID, port), codes.InvalidArgument, fmt.Sprint(port))
	}
	if err := ask(pod.ID, 80); err != nil {
		t.Error(err)
	}
	pod.Stop(t)
	wantError(t, ask(pod.ID, 80), codes.FailedPrecondition)
}
