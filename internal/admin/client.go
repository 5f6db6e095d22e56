package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"syscall"
	"time"
)

// SocketPath is where a daemon with the state directory listens.
func SocketPath(stateDir string) string { return filepath.Join(stateDir, "admin.sock") }

// Client asks a running daemon.
type Client struct {
	socket string
	http   http.Client
}

// patience bounds the wait for the beginning of an answer: a fresh look takes a minute at most, and a quarter for foreign owners.
const patience = 2 * time.Minute

// NewClient returns a client of the daemon at the socket. It connects with the first request.
func NewClient(socket string) *Client { return newClient(socket, patience) }

func newClient(socket string, patience time.Duration) *Client {
	var dialer net.Dialer
	transport := &http.Transport{ResponseHeaderTimeout: patience, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, "unix", socket)
	}}
	return &Client{socket: socket, http: http.Client{Transport: transport}}
}

// PoolStatus counts the pool's ranges.
func (c *Client) PoolStatus(ctx context.Context) (PoolStatus, error) {
	return get[PoolStatus](ctx, c, "/v1/pool/status")
}

// PoolRanges lists every range that is not free.
func (c *Client) PoolRanges(ctx context.Context) ([]Range, error) {
	return get[[]Range](ctx, c, "/v1/pool/ranges")
}

// PoolLeaks returns what the last look for leaked ranges found. With fresh the daemon takes a look now, and repairs.
func (c *Client) PoolLeaks(ctx context.Context, fresh bool) (Leaks, error) {
	method := http.MethodGet
	if fresh {
		method = http.MethodPost
	}
	return call[Leaks](ctx, c, method, "/v1/pool/leaks", nil)
}

// PoolCheck returns what was found last. With fresh the daemon looks now, which takes some seconds at most.
func (c *Client) PoolCheck(ctx context.Context, fresh bool) (Check, error) {
	method := http.MethodGet
	if fresh {
		method = http.MethodPost
	}
	return call[Check](ctx, c, method, "/v1/pool/check", nil)
}

// Reserve keeps a range from every pod that does not name it.
func (c *Client) Reserve(ctx context.Context, r Reservation) error {
	_, err := call[struct{}](ctx, c, http.MethodPost, "/v1/pool/reservations", r)
	return err
}

// Release gives up a reservation, or a range in quarantine.
func (c *Client) Release(ctx context.Context, r Release) error {
	_, err := call[struct{}](ctx, c, http.MethodPost, "/v1/pool/release", r)
	return err
}

func get[T any](ctx context.Context, c *Client, path string) (T, error) {
	return call[T](ctx, c, http.MethodGet, path, nil)
}

// call sends a request, with a JSON body unless that is nil, and decodes the answer. What the daemon
// refuses is an error with its words, ErrInvalid, ErrNotFound or ErrConflict.
func call[T any](ctx context.Context, c *Client, method, path string, request any) (body T, err error) {
	var text []byte
	if request != nil {
		if text, err = json.Marshal(request); err != nil {
			return body, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://userns-shim"+path, bytes.NewReader(text))
	if err != nil {
		return body, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return body, c.explain(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return body, refusal(path, resp)
	}
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		return body, fmt.Errorf("read answer of userns-shim to %s: %w", path, err)
	}
	return body, nil
}

func refusal(path string, resp *http.Response) error {
	var f failure
	if err := json.NewDecoder(resp.Body).Decode(&f); err != nil {
		return fmt.Errorf("ask userns-shim for %s: %s", path, resp.Status)
	}
	kinds := map[int]error{http.StatusBadRequest: ErrInvalid, http.StatusNotFound: ErrNotFound, http.StatusConflict: ErrConflict}
	if kind := kinds[resp.StatusCode]; kind != nil {
		return refused{f.Error, kind}
	}
	return fmt.Errorf("ask userns-shim for %s: %s", path, f.Error)
}

// explain says what can be done about a daemon that cannot be reached.
func (c *Client) explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("open %s: only root may: %w", c.socket, fs.ErrPermission)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("userns-shim does not listen on %s: start it, or name its state directory with --state", c.socket)
	}
	var slow net.Error
	if errors.As(err, &slow) && slow.Timeout() {
		return fmt.Errorf("userns-shim listens on %s and does not answer: its log says what it does: %w", c.socket, err)
	}
	return err
}
