package varlink

import (
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// root is exempt from the limits on calls.
const root = 0

// user is a user of the host who has or had connections.
type user struct {
	open  map[*connection]struct{}
	calls *rate.Limiter
}

// connection is one client.
type connection struct {
	net.Conn
	uid    uint32
	user   *user
	active time.Time // of its last call; guarded by connections.mu
}

// connections are those that are open. A user is remembered while it has any, and for as long as its right to
// calls is not whole again.
type connections struct {
	limits Limits
	all    *rate.Limiter // calls of all users but root

	mu    sync.Mutex
	open  map[*connection]struct{}
	users map[uint32]*user
}

func newConnections(limits Limits) *connections {
	return &connections{
		limits: limits,
		all:    rate.NewLimiter(rate.Limit(limits.CallsPerSecond), limits.CallsPerSecond),
		open:   map[*connection]struct{}{},
		users:  map[uint32]*user{},
	}
}

// add takes a connection of the user in. Where that is one too many, it closes another that has been idle longest:
// one of the same user, or of all.
func (s *connections) add(conn net.Conn, uid uint32) *connection {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgetLocked()
	u := s.users[uid]
	if u == nil {
		u = &user{open: map[*connection]struct{}{}, calls: rate.NewLimiter(rate.Limit(s.limits.CallsPerUser), s.limits.CallsPerUser)}
		s.users[uid] = u
	}
	switch {
	case len(u.open) >= s.limits.ConnectionsPerUser:
		s.closeLocked(idlest(u.open))
	case len(s.open) >= s.limits.Connections:
		s.closeLocked(idlest(s.open))
	}
	c := &connection{Conn: conn, uid: uid, user: u, active: time.Now()}
	u.open[c], s.open[c] = struct{}{}, struct{}{}
	return c
}

func idlest(open map[*connection]struct{}) *connection {
	var found *connection
	for c := range open {
		if found == nil || c.active.Before(found.active) {
			found = c
		}
	}
	return found
}

// forgetLocked drops users of whom nothing has to be known, when there are many.
func (s *connections) forgetLocked() {
	if len(s.users) < 2*s.limits.Connections {
		return
	}
	for uid, u := range s.users {
		if len(u.open) == 0 && u.calls.Tokens() >= float64(s.limits.CallsPerUser) {
			delete(s.users, uid)
		}
	}
}

// close closes the connection; a second time does nothing.
func (s *connections) close(c *connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closeLocked(c)
}

func (s *connections) closeLocked(c *connection) {
	if _, open := s.open[c]; !open {
		return
	}
	delete(s.open, c)
	delete(c.user.open, c)
	_ = c.Close() // the client is gone or has to go: there is nobody to tell
}

// closeAll closes what is open.
func (s *connections) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		s.closeLocked(c)
	}
}

// touch notes that the client made a call.
func (s *connections) touch(c *connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.active = time.Now()
}
