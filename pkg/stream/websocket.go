package stream

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/websocket"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

// cri-streaming serves WebSocket clients up to the fourth version of the protocol, in
// which a client cannot end its stdin alone, and does not know the tunnel in which
// client-go forwards ports. Kubelet translates both, for the runtimes that it was
// written for; clients that come here themselves (crictl) speak them. So they are
// served here, by giving cri-streaming a SPDY request in the WebSocket request's place.

// closeWait bounds the write of a WebSocket's closing message.
const closeWait = time.Second

// handler routes requests. The first part of an exec's and attach's path is the marks
// of the streams that it was asked for.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	for _, kind := range []string{"exec", "attach"} {
		mux.HandleFunc("/{marks}/"+kind+"/{token}", func(w http.ResponseWriter, req *http.Request) {
			plain := req.Clone(req.Context())
			plain.URL.Path, plain.URL.RawPath = "/"+kind+"/"+req.PathValue("token"), ""
			if wsstream.IsWebSocketRequestWithStreamCloseProtocol(req) {
				s.translate(w, plain, decodeMarks(req.PathValue("marks")))
				return
			}
			s.streaming.ServeHTTP(w, plain)
		})
	}
	mux.HandleFunc("/portforward/{token}", func(w http.ResponseWriter, req *http.Request) {
		if wsstream.IsWebSocketRequestWithTunnelingProtocol(req) {
			s.tunnel(w, req)
			return
		}
		s.streaming.ServeHTTP(w, req)
	})
	return mux
}

// translate serves the fifth version of the protocol. Its channels are carried over
// streams of the fourth, which SPDY can close one by one.
func (s *Server) translate(w http.ResponseWriter, req *http.Request, want wanted) {
	var running sync.WaitGroup
	serveAsSPDY(s.streaming, w, req, remotecommand.StreamProtocolV4Name, func() (net.Conn, error) {
		ws := wsstream.NewConn(map[string]wsstream.ChannelProtocolConfig{
			remotecommand.StreamProtocolV5Name: {Binary: true, Channels: channelsOf(want)},
		})
		ws.SetIdleTimeout(s.idle)
		_, channels, err := ws.Open(w, req)
		if err != nil {
			return nil, fmt.Errorf("accept WebSocket: %w", err)
		}
		near, far := net.Pipe()
		b := &bridge{ws: ws, channels: channels, conn: near}
		running.Go(func() { b.run(req.Context(), want) })
		return far, nil
	})
	running.Wait()
}

// tunnel serves SPDY that comes in the messages of a WebSocket.
func (s *Server) tunnel(w http.ResponseWriter, req *http.Request) {
	var running sync.WaitGroup
	var conn *tunnelConn
	serveAsSPDY(s.streaming, w, req, portforward.ProtocolV1Name, func() (net.Conn, error) {
		accepted, refused := make(chan *tunnelConn, 1), make(chan struct{})
		running.Go(func() {
			defer close(refused)
			websocket.Server{Handshake: chooseTunnel, Handler: func(ws *websocket.Conn) {
				ws.PayloadType = websocket.BinaryFrame
				c := &tunnelConn{Conn: ws, closed: make(chan struct{})}
				accepted <- c
				<-c.closed
			}}.ServeHTTP(w, req)
		})
		select {
		case conn = <-accepted:
			return conn, nil
		case <-refused:
			return nil, errors.New("accept WebSocket: handshake was refused")
		}
	})
	if conn != nil {
		_ = conn.Close()
	}
	running.Wait()
}

func chooseTunnel(config *websocket.Config, req *http.Request) error {
	if !slices.Contains(config.Protocol, portforward.WebsocketsSPDYTunnelingPortForwardV1) {
		return websocket.ErrBadWebSocketProtocol
	}
	config.Protocol = []string{portforward.WebsocketsSPDYTunnelingPortForwardV1}
	config.Origin = &url.URL{Host: req.RemoteAddr} // the connection's address is made of it
	return nil
}

// serveAsSPDY has h serve a WebSocket request as a SPDY request for protocol. take
// accepts the WebSocket and returns the connection that carries SPDY; it is called
// when h has found nothing to refuse. Refusals reach the client as plain HTTP.
func serveAsSPDY(h http.Handler, w http.ResponseWriter, req *http.Request, protocol string, take func() (net.Conn, error)) {
	req = req.Clone(req.Context())
	for _, name := range []string{"Sec-Websocket-Key", "Sec-Websocket-Version", "Sec-Websocket-Protocol", "Sec-Websocket-Extensions"} {
		req.Header.Del(name)
	}
	req.Header.Set(httpstream.HeaderConnection, httpstream.HeaderUpgrade)
	req.Header.Set(httpstream.HeaderUpgrade, spdy.HeaderSpdy31)
	req.Header.Set(httpstream.HeaderProtocolVersion, protocol)
	h.ServeHTTP(upgradeWriter{w, take}, req)
}

// upgradeWriter leaves the answer to the upgrade to the WebSocket's handshake.
type upgradeWriter struct {
	http.ResponseWriter
	take func() (net.Conn, error)
}

func (u upgradeWriter) WriteHeader(code int) {
	if code != http.StatusSwitchingProtocols {
		u.ResponseWriter.WriteHeader(code)
	}
}

// Hijack implements http.Hijacker.
func (u upgradeWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, err := u.take()
	if err != nil {
		return nil, nil, err
	}
	return conn, bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn)), nil
}

// tunnelConn is a WebSocket as a byte stream. Closing twice is no error, see clientConn.
type tunnelConn struct {
	*websocket.Conn
	once   sync.Once
	closed chan struct{}
}

func (c *tunnelConn) Close() error {
	c.once.Do(func() {
		_ = c.SetWriteDeadline(time.Now().Add(closeWait))
		_ = c.Conn.Close() // a client that is gone already cannot be told
		close(c.closed)
	})
	return nil
}
