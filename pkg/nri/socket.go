package nri

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"time"
)

// ErrSocket means that no plugin can connect. The message says what to do.
var ErrSocket = errors.New("NRI plugins cannot connect")

// probeTimeout bounds the question whether somebody serves a socket.
const probeTimeout = time.Second

// socketAdvice follows "another process ...".
const socketAdvice = "most likely containerd, whose own NRI is on by default; " +
	"set disable = true for its plugin io.containerd.nri.v1.nri, or another nri.socketPath here, and restart both"

// socket is the state of the place where plugins connect. containerd has NRI on by default, at the same
// place: whoever comes first keeps it, and the other says so.
type socket struct {
	path string // empty where plugins are not to connect

	mu    sync.Mutex
	fault error       // why nobody can connect
	file  fs.FileInfo // the socket that was made
}

// claimSocket looks whether the path is free. A socket that nobody serves any more is.
func claimSocket(path string) *socket {
	s := &socket{path: path}
	if path == "" {
		return s
	}
	conn, err := net.DialTimeout("unix", path, probeTimeout)
	if err != nil {
		return s
	}
	_ = conn.Close() // nothing was sent
	s.fault = fmt.Errorf("%w: another process serves %s, %s", ErrSocket, path, socketAdvice)
	return s
}

// listens says whether plugins are to be let in.
func (s *socket) listens() bool { return s.path != "" && s.fault == nil }

// failed notes why Start failed, and returns it.
func (s *socket) failed(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = fmt.Errorf("%w: %w", ErrSocket, err)
	return s.fault
}

// serve remembers the socket that the library has made.
func (s *socket) serve() error {
	if !s.listens() {
		return s.fault
	}
	file, err := os.Lstat(s.path)
	if err != nil {
		return s.failed(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.file = file
	return nil
}

// ours says whether the path still leads to the socket that was made, or was never claimed.
func (s *socket) ours() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		return true
	}
	file, err := os.Lstat(s.path)
	return err == nil && os.SameFile(s.file, file)
}

func (s *socket) ready() error {
	s.mu.Lock()
	fault := s.fault
	s.mu.Unlock()
	if fault != nil || s.ours() {
		return fault
	}
	return fmt.Errorf("%w: another process has taken the place of %s, %s", ErrSocket, s.path, socketAdvice)
}
