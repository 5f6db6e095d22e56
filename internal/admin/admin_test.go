package admin

import (
	"context"
	"errors"
	"iter"
	"net"
	"net/http"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// fakePool answers what a test says and notes what it was asked.
type fakePool struct {
	status   PoolStatus
	ranges   []Range
	err      error
	reserved []Reservation
	released []Release
	leaks    Leaks
	looks    int // for leaks, when asked
	check    Check
	checks   int // likewise
}

func (p *fakePool) Status() PoolStatus      { return p.status }
func (p *fakePool) Ranges() iter.Seq[Range] { return slices.Values(p.ranges) }

func (p *fakePool) Leaks(_ context.Context, fresh bool) Leaks {
	if fresh {
		p.looks++
	}
	return p.leaks
}

func (p *fakePool) Check(_ context.Context, fresh bool) Check {
	if fresh {
		p.checks++
	}
	return p.check
}

func (p *fakePool) Reserve(_ context.Context, r Reservation) error {
	p.reserved = append(p.reserved, r)
	return p.err
}

func (p *fakePool) Release(_ context.Context, r Release) error {
	p.released = append(p.released, r)
	return p.err
}

// serve returns a client of a server for the pool.
func serve(t *testing.T, pool *fakePool) *Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, listener, pool, pool) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return NewClient(socket)
}

func TestClientGetsWhatThePoolSays(t *testing.T) {
	pool := &fakePool{
		status: PoolStatus{Segments: []Segment{{Name: "pool", Extents: []Extent{{Start: 65536, Length: 131072}}, Capacity: 2, Free: 1, Allocated: 1}}},
		ranges: []Range{{Start: 65536, Length: 65536, State: "quarantined", Pod: "uid", Traces: []string{"layers"}, Since: time.Unix(1, 0).UTC()}},
	}
	c := serve(t, pool)
	if got, err := c.PoolStatus(t.Context()); err != nil || !reflect.DeepEqual(got, pool.status) {
		t.Errorf("status %+v, %v", got, err)
	}
	if got, err := c.PoolRanges(t.Context()); err != nil || !reflect.DeepEqual(got, pool.ranges) {
		t.Errorf("ranges %+v, %v", got, err)
	}
	pool.leaks = Leaks{Took: "1s", Leaks: []Leak{{Kind: "pin", Sandbox: "s", Found: "f", Since: time.Unix(2, 0).UTC()}}}
	for looks, fresh := range []bool{false, true} {
		if got, err := c.PoolLeaks(t.Context(), fresh); err != nil || !reflect.DeepEqual(got, pool.leaks) || pool.looks != looks {
			t.Errorf("leaks %+v, %v after %d looks", got, err, pool.looks)
		}
	}
	pool.check = Check{Scanned: time.Unix(3, 0).UTC(), Findings: []Finding{{Severity: SeverityError, Code: "c", Message: "m"}}}
	for checks, fresh := range []bool{false, true} {
		if got, err := c.PoolCheck(t.Context(), fresh); err != nil || !reflect.DeepEqual(got, pool.check) || pool.checks != checks {
			t.Errorf("check %+v, %v after %d checks", got, err, pool.checks)
		}
	}
	reservation, release := Reservation{Name: "n", Start: 1, Length: 2}, Release{Start: 3, Length: 4, Force: true}
	if err := errors.Join(c.Reserve(t.Context(), reservation), c.Release(t.Context(), release)); err != nil {
		t.Fatal(err)
	}
	if len(pool.reserved) != 1 || pool.reserved[0] != reservation || len(pool.released) != 1 || pool.released[0] != release {
		t.Errorf("the pool was asked for %+v and %+v", pool.reserved, pool.released)
	}
}

// TestNoRangesAreAList, as any number of them is.
func TestNoRangesAreAList(t *testing.T) {
	for n := range 3 {
		want := make([]Range, n)
		if got, err := serve(t, &fakePool{ranges: want}).PoolRanges(t.Context()); err != nil || got == nil || len(got) != n {
			t.Errorf("%d ranges came as %+v, %v", n, got, err)
		}
	}
}

func TestClientTellsRefusalsApart(t *testing.T) {
	for _, kind := range []error{ErrInvalid, ErrNotFound, ErrConflict} {
		c := serve(t, &fakePool{err: Refuse(kind, errors.New("because of the weather"))})
		if err := c.Reserve(t.Context(), Reservation{}); !errors.Is(err, kind) || err.Error() != "because of the weather" {
			t.Errorf("%v came as %v", kind, err)
		}
	}
	c := serve(t, &fakePool{err: errors.New("disk")})
	if err := c.Release(t.Context(), Release{}); err == nil || !strings.Contains(err.Error(), "disk") {
		t.Errorf("the daemon's own failure came as %v", err)
	}
}

func TestServerRefusesWhatItDoesNotKnow(t *testing.T) {
	pool := &fakePool{}
	c := serve(t, pool)
	for name, send := range map[string]func() error{
		"path": func() error { _, err := get[PoolStatus](t.Context(), c, "/v9/pool"); return err },
		"field": func() error {
			_, err := call[struct{}](t.Context(), c, http.MethodPost, "/v1/pool/release", map[string]int{"nmae": 1})
			return err
		},
		"type": func() error {
			_, err := call[struct{}](t.Context(), c, http.MethodPost, "/v1/pool/release", []int{1})
			return err
		},
		"size": func() error {
			_, err := call[struct{}](t.Context(), c, http.MethodPost, "/v1/pool/release", Release{Name: strings.Repeat("x", maxBody)})
			return err
		},
	} {
		if err := send(); err == nil || len(pool.released) != 0 {
			t.Errorf("%s: error %v, the pool was asked for %v", name, err, pool.released)
		}
	}
}

func TestClientWithoutADaemonNamesTheRemedy(t *testing.T) {
	c := NewClient(filepath.Join(t.TempDir(), "none"))
	if _, err := c.PoolStatus(t.Context()); err == nil || !strings.Contains(err.Error(), "start it") {
		t.Errorf("error %v", err)
	}
}

// TestClientGivesUpOnADaemonThatHangs: it takes connections, for the kernel does, and answers nothing.
func TestClientGivesUpOnADaemonThatHangs(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	c := newClient(socket, 10*time.Millisecond)
	if _, err := c.PoolStatus(t.Context()); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("error %v", err)
	}
}
