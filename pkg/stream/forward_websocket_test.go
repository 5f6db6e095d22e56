package stream

import (
	"context"
	"encoding/binary"
	"io"
	"net/url"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestServerPortForwardWebSocket speaks the protocol by hand, because kubectl tunnels
// SPDY instead: each port has a data and an error channel, whose number is a message's
// first byte, and which start with the port.
func TestServerPortForwardWebSocket(t *testing.T) {
	over := make(chan error, 1)
	pod := serve(t, echo)
	s := startServer(t, runner{forward: func(ctx context.Context, _ string, port uint16, client io.ReadWriteCloser) error {
		err := ForwardPort(ctx, "", map[uint16]uint16{8080: pod}[port], client)
		over <- err
		return err
	}})
	resp, err := s.GetPortForward(&runtimeapi.PortForwardRequest{PodSandboxId: "s1", Port: []int32{8080}})
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(resp.GetUrl())
	if err != nil {
		t.Fatal(err)
	}
	u.Scheme = "ws"
	ws, err := websocket.Dial(u.String(), "v4.channel.k8s.io", "http://"+s.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	for channel := range byte(2) {
		msg := receive(t, ws)
		if len(msg) != 3 || msg[0] != channel || binary.LittleEndian.Uint16(msg[1:]) != 8080 {
			t.Fatalf("start of channel %d: %v", channel, msg)
		}
	}
	text := strings.Repeat("hello pod ", 1000)
	if err := websocket.Message.Send(ws, append([]byte{0}, text...)); err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for got.Len() < len(text) {
		msg := receive(t, ws)
		if len(msg) == 0 || msg[0] != 0 {
			t.Fatalf("message %q", msg)
		}
		got.Write(msg[1:])
	}
	if got.String() != text {
		t.Errorf("got %d bytes, want %d", got.Len(), len(text))
	}
	_ = ws.Close()
	if err := waitForward(t, over); err != nil {
		t.Errorf("ForwardPort: %v", err)
	}
}

func receive(t *testing.T, ws *websocket.Conn) []byte {
	t.Helper()
	var msg []byte
	if err := websocket.Message.Receive(ws, &msg); err != nil {
		t.Fatal(err)
	}
	return msg
}

// TestServerTunnelRefusals holds that a tunnel is refused as plain HTTP before a WebSocket is there.
func TestServerTunnelRefusals(t *testing.T) {
	s := startServer(t, runner{forward: func(context.Context, string, uint16, io.ReadWriteCloser) error { return nil }})
	resp, err := s.GetPortForward(&runtimeapi.PortForwardRequest{PodSandboxId: "s1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ name, url, protocol string }{
		{"unknown token", "ws://" + s.Address() + "/portforward/guess", "SPDY/3.1+portforward.k8s.io"},
		{"unknown protocol", "ws" + strings.TrimPrefix(resp.GetUrl(), "http"), "SPDY/3.1+other.k8s.io"},
	} {
		ws, err := websocket.Dial(tc.url, tc.protocol, "http://"+s.Address())
		if err == nil {
			_ = ws.Close()
			t.Errorf("%s: a tunnel was opened", tc.name)
		}
	}
}

// TestServerTunnelEndsWithServer holds that Close waits for tunnels, and for their goroutines.
func TestServerTunnelEndsWithServer(t *testing.T) {
	s := startServer(t, runner{})
	resp, err := s.GetPortForward(&runtimeapi.PortForwardRequest{PodSandboxId: "s1"})
	if err != nil {
		t.Fatal(err)
	}
	ws, err := websocket.Dial("ws"+strings.TrimPrefix(resp.GetUrl(), "http"), "SPDY/3.1+portforward.k8s.io", "http://"+s.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	if err := s.Close(within(t, 5*time.Second)); err != nil {
		t.Error(err)
	}
	if _, err := ws.Read(make([]byte, 1)); err == nil {
		t.Error("tunnel goes on without its server")
	}
}
