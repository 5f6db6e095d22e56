package varlink

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const aCall = `{"method":"io.example.Echo.Echo"}` + "\x00"

func (c *client) call(t *testing.T) {
	t.Helper()
	c.send(t, aCall)
	c.receive(t)
}

// limits returns the default ones with changes.
func limits(change func(l *Limits)) Limits {
	l := DefaultLimits()
	change(&l)
	return l
}

// TestTheIdlestConnectionGivesWay: whoever hoards connections loses them, and who is new is served.
func TestTheIdlestConnectionGivesWay(t *testing.T) {
	socket := serve(t, limits(func(l *Limits) { l.ConnectionsPerUser = 3 }))
	var clients []*client
	for range 3 {
		clients = append(clients, dial(t, socket))
		clients[len(clients)-1].call(t)
	}
	clients[0].call(t)
	for range 5 { // each of them takes the place of the one before, once clients[1] and [2] are gone
		c := dial(t, socket)
		c.call(t)
		clients[0].call(t)
	}
	clients[1].cutOff(t)
	clients[2].cutOff(t)
	clients[0].call(t)
}

// connect returns a connection of the user.
func connect(t *testing.T, s *connections, uid uint32) *connection {
	t.Helper()
	near, far := net.Pipe()
	c := s.add(near, uid)
	t.Cleanup(func() { s.close(c); _ = far.Close() })
	return c
}

func TestUsersDoNotTakeEachOthersPlaces(t *testing.T) {
	s := newConnections(limits(func(l *Limits) { l.Connections, l.ConnectionsPerUser = 4, 2 }))
	isOpen := func(c *connection) bool { _, ok := s.open[c]; return ok }
	first := connect(t, s, 1000)
	second := connect(t, s, 2000)
	for range 10 {
		connect(t, s, 3000)
	}
	if !isOpen(first) || !isOpen(second) || len(s.open) != 4 || len(s.users[3000].open) != 2 {
		t.Errorf("after one user's ten connections %d are open, and of the others %v and %v", len(s.open), isOpen(first), isOpen(second))
	}
	s.touch(first)
	last := connect(t, s, 4000)
	if isOpen(second) || !isOpen(first) || !isOpen(last) || len(s.open) != 4 {
		t.Errorf("the place for another user is not that of the idlest connection of all")
	}
	s.close(last)
	s.close(last)
	if len(s.open) != 3 {
		t.Errorf("%d are open", len(s.open))
	}
}

// TestUsersAreForgotten, of whom there can be as many as ids.
func TestUsersAreForgotten(t *testing.T) {
	s := newConnections(DefaultLimits())
	for uid := range uint32(100_000) {
		near, far := net.Pipe()
		s.close(s.add(near, uid))
		_ = far.Close()
	}
	if got := len(s.users); got > 2*s.limits.Connections {
		t.Errorf("%d users are remembered", got)
	}
}

func TestCallsOfAUserAreBounded(t *testing.T) {
	synctest.Test(t, callsOfAUserAreBounded) // whose clock stands still while the calls are made
}

func callsOfAUserAreBounded(t *testing.T) {
	server, err := New(Options{Limits: limits(func(l *Limits) { l.CallsPerUser, l.CallsPerSecond = 1, 3 })})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	admit := func(uid uint32) error {
		c := connect(t, server.open, uid)
		return server.admit(ctx, c)
	}
	for i, step := range []struct {
		uid   uint32
		waits bool
	}{{1000, false}, {1000, true}, {2000, false}, {0, false}, {0, false}, {0, false}, {0, false}, {0, false}, {3000, false}, {4000, true}} {
		if err := admit(step.uid); (err != nil) != step.waits {
			t.Errorf("call %d, of user %d: %v, want to wait: %v", i, step.uid, err, step.waits)
		}
	}
}

func TestSlowSendersAreCutOff(t *testing.T) {
	socket := serve(t, limits(func(l *Limits) { l.Read = 300 * time.Millisecond }))
	began := time.Now()
	c := dial(t, socket)
	go func() {
		for { // a byte now and then does not keep the connection
			if _, err := io.WriteString(c.Conn, " "); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	c.cutOff(t)
	if took := time.Since(began); took < 250*time.Millisecond || took > 10*time.Second {
		t.Errorf("after %v", took)
	}
}

// TestWhoReadsNothingIsCutOff, while others are served.
func TestWhoReadsNothingIsCutOff(t *testing.T) {
	socket := serve(t, limits(func(l *Limits) { l.Write = 300 * time.Millisecond }))
	hostile, other := dial(t, socket), dial(t, socket)
	failed := make(chan error, 1)
	go func() {
		message := `{"method":"io.example.Echo.Echo","parameters":{"x":"` + strings.Repeat("x", 16000) + `"}}` + "\x00"
		for {
			if _, err := io.WriteString(hostile.Conn, message); err != nil {
				failed <- err
				return
			}
		}
	}()
	other.call(t)
	if err := <-failed; isTimeout(err) {
		t.Errorf("a client that reads nothing is not cut off: %v", err)
	}
	other.call(t)
}

// TestServeEndsWithClients: open connections do not keep the server from its end.
func TestServeEndsWithClients(t *testing.T) {
	server, err := New(Options{Interfaces: []Interface{echo()}})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx, listener) }()
	c := dial(t, listener.Addr().String())
	c.call(t)
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the server goes on")
	}
	c.cutOff(t)
}
