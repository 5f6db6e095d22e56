package stream

import (
	"bytes"
	"context"
	"io"
	"sync"
	"time"
)

// Bounds for attached clients. A client whose queue is full holds the container back,
// as a terminal would, so that a session over a slow network sees all output; one
// that does not take a single piece within the stall time is cut off. The log is
// written before clients are served, so it is late by that time at most.
const (
	clientQueue        = 32 // pieces of at most readBytes: 1 MiB
	defaultAttachStall = 5 * time.Second
)

// broadcast hands one output stream of a container to its attached clients.
type broadcast struct {
	stall time.Duration

	mu      sync.Mutex
	clients map[*client]struct{}
	ended   bool
}

// client is one attached client's view of one output stream.
type client struct {
	to    io.WriteCloser
	queue chan []byte   // closed at the end of the stream, by the pump
	gone  chan struct{} // closed when the client is cut off, has left, or was served to the end
	once  sync.Once
	err   error // why it is gone; read after gone is closed
}

func newBroadcast(stall time.Duration) *broadcast {
	return &broadcast{stall: stall, clients: make(map[*client]struct{})}
}

// add registers a client that is served through to. It returns nil when the stream
// has ended.
func (b *broadcast) add(to io.WriteCloser) *client {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return nil
	}
	c := &client{to: to, queue: make(chan []byte, clientQueue), gone: make(chan struct{})}
	b.clients[c] = struct{}{}
	return c
}

// remove takes a client out, for the reason err (nil: it left, or had everything).
func (b *broadcast) remove(c *client, err error) {
	b.mu.Lock()
	delete(b.clients, c)
	b.mu.Unlock()
	c.leave(err)
}

func (c *client) leave(err error) {
	c.once.Do(func() {
		c.err = err
		close(c.gone)
		_ = c.to.Close() // ends a blocked Write; there is nobody to tell of an error
	})
}

// write queues p for each client. The pump alone calls it, and end.
func (b *broadcast) write(p []byte) {
	clients := b.snapshot()
	if len(clients) == 0 {
		return
	}
	piece := bytes.Clone(p)
	var behind []*client
	for _, c := range clients {
		select {
		case c.queue <- piece:
		case <-c.gone:
		default:
			behind = append(behind, c)
		}
	}
	if len(behind) > 0 {
		b.wait(behind, piece)
	}
}

// wait gives the clients whose queues are full one stall time, all together.
func (b *broadcast) wait(behind []*client, piece []byte) {
	patience, cancel := context.WithTimeout(context.Background(), b.stall)
	defer cancel()
	for _, c := range behind {
		select {
		case c.queue <- piece:
		case <-c.gone:
		case <-patience.Done():
			select {
			case c.queue <- piece: // it made room while another one was waited for
			default:
				b.remove(c, ErrSlowClient)
			}
		}
	}
}

func (b *broadcast) snapshot() []*client {
	b.mu.Lock()
	defer b.mu.Unlock()
	clients := make([]*client, 0, len(b.clients))
	for c := range b.clients {
		clients = append(clients, c)
	}
	return clients
}

// end tells the clients that no output follows what is queued.
func (b *broadcast) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	for c := range b.clients {
		close(c.queue)
		delete(b.clients, c)
	}
}

// serve writes the stream to the client until it ends, the client goes, or ctx ends,
// and closes the client's writer. It returns nil at the end of the stream or of ctx,
// otherwise ErrSlowClient or ErrClientGone.
func (b *broadcast) serve(ctx context.Context, c *client) error {
	stop := context.AfterFunc(ctx, func() { b.remove(c, nil) })
	defer stop()
	for {
		select {
		case piece, ok := <-c.queue:
			if !ok {
				b.remove(c, nil)
			} else if _, err := c.to.Write(piece); err != nil {
				b.remove(c, ErrClientGone)
			} else {
				continue
			}
		case <-c.gone:
		}
		<-c.gone
		return c.err
	}
}
