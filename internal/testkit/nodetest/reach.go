package nodetest

import (
	"context"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
)

// passageBuffer is what the kernel may take of what is passed on before somebody reads it, in bytes.
const passageBuffer = 256 << 10

// Reach returns a URL at which the test reaches a server of the node's own network, for clients that cannot be given a way to dial:
// the bytes are passed on until the test ends.
func (n *Node) Reach(t testing.TB, rawURL string) *url.URL {
	t.Helper()
	u, err := url.Parse(rawURL)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &passage{node: n, to: u.Host}
	r.running.Go(func() { r.accept(listener) })
	t.Cleanup(func() {
		_ = listener.Close()
		r.closeAll()
		r.running.Wait()
	})
	u.Host = listener.Addr().String()
	return u
}

// passage passes connections on into a node's network.
type passage struct {
	node    *Node
	to      string
	running sync.WaitGroup

	mu     sync.Mutex
	closed bool
	conns  []net.Conn
}

func (p *passage) accept(listener net.Listener) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return
		}
		server, err := p.node.World.Dial(context.Background(), "tcp", p.to)
		if err != nil {
			_ = client.Close()
			continue
		}
		// The kernel lets such a buffer grow to tens of megabytes, with what a client reads and when. What is on its way to one that
		// reads nothing shall be the runtime's.
		for _, conn := range []net.Conn{client, server} {
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.SetReadBuffer(passageBuffer) // of a connection that has just ended it fails
			}
		}
		p.pass(client, server)
	}
}

// pass ends both connections when one of them ends: these protocols have no half-close of TCP.
func (p *passage) pass(a, b net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns = append(p.conns, a, b)
	if p.closed {
		_, _ = a.Close(), b.Close()
		return
	}
	for _, pair := range [][2]net.Conn{{a, b}, {b, a}} {
		p.running.Go(func() {
			_, _ = io.Copy(pair[0], pair[1])
			_, _ = a.Close(), b.Close()
		})
	}
}

func (p *passage) closeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, conn := range p.conns {
		_ = conn.Close()
	}
}
