package idpool

import (
	"errors"
	"slices"
	"time"

	"pgregory.net/rapid"
)

func (m *model) named(name string) int {
	return m.find(func(a Allocation) bool { return a.State == StateReserved && a.Reservation == name })
}

func (m *model) reserve(name string, r Range, now time.Time) error {
	if i := m.named(name); i >= 0 {
		if m.entries[i].Range == r {
			return nil
		}
		return ErrInUse
	}
	if !m.makeWay(r, func(a Allocation) bool { return a.Reservation == name && a.Range == r }) {
		return ErrConflict
	}
	m.drop(m.overlapping(r))
	m.entries = append(m.entries, Allocation{Range: r, State: StateReserved, Reservation: name, Since: now})
	return nil
}

func (m *model) joinReservation(name, sandbox string) (Range, error) {
	i := m.named(name)
	if i < 0 {
		return Range{}, ErrNotFound
	}
	if err := m.claimable(m.entries[i].Range); err != nil {
		return Range{}, err
	}
	if used := m.ofSandbox(sandbox); used >= 0 && used != i {
		return Range{}, ErrInvalid
	}
	m.join(i, sandbox)
	return m.entries[i].Range, nil
}

func (m *model) unreserve(name string, now time.Time) error {
	i := m.named(name)
	switch {
	case i < 0:
		return ErrNotFound
	case len(m.entries[i].Sandboxes) > 0:
		return ErrInUse
	case errors.Is(m.claimable(m.entries[i].Range), ErrForbidden):
		m.entries = slices.Delete(m.entries, i, i+1)
	default:
		m.entries[i].State, m.entries[i].Since = StateQuarantined, now
		m.ask(m.entries[i])
	}
	return nil
}

// stepReservation does one random request that concerns a reservation.
func (m *machine) stepReservation(t *rapid.T, b *fakeTx, sandbox string) {
	now := m.clock.Now()
	name := rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "name")
	var got, want error
	request := rapid.SampledFrom([]string{"reserve", "join", "join", "unreserve"}).Draw(t, "request")
	switch request {
	case "reserve":
		r := drawRange(t)
		got, want = m.pool.Reserve(b, name, r), m.model.reserve(name, r, now)
	case "join":
		var r, wanted Range
		r, got = m.pool.Join(b, name, sandbox)
		wanted, want = m.model.joinReservation(name, sandbox)
		if r != wanted {
			t.Fatalf("join(%s, %s) = %v, want %v", name, sandbox, r, wanted)
		}
	case "unreserve":
		got, want = m.pool.Unreserve(b, name), m.model.unreserve(name, now)
	}
	if !errors.Is(got, want) || (got == nil) != (want == nil) {
		t.Fatalf("%s(%s) = %v, want %v", request, name, got, want)
	}
}
