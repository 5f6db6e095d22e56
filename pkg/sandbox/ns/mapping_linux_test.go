package ns

import (
	"errors"
	"path/filepath"
	"testing"
)

// TestMappingOfAPin: the namespaces have no process, and the mapping is read all the same.
func TestMappingOfAPin(t *testing.T) {
	for _, length := range []uint32{65536, 131072, 1} {
		req := newRequest(t)
		req.User.Length = length
		pins := create(t, req)
		if got, err := MappingOf(t.Context(), pins.User); err != nil || got != *req.User {
			t.Errorf("the mapping is %+v, %v, want %+v", got, err, *req.User)
		}
		if pid, err := Tenant("/proc", []string{pins.User}); err != nil || pid != 0 {
			t.Errorf("process %d is left in the namespace, %v", pid, err)
		}
		if _, err := MappingOf(t.Context(), pins.UTS); !errors.Is(err, ErrForeign) {
			t.Errorf("of another kind of namespace: %v", err)
		}
	}
	if _, err := MappingOf(t.Context(), filepath.Join(t.TempDir(), "none")); !errors.Is(err, ErrNotPinned) {
		t.Errorf("of nothing: %v", err)
	}
}

func TestParseMaps(t *testing.T) {
	const good = "         0     131072      65536\n"
	if got, err := parseMaps([]byte(good), []byte(good)); err != nil || got != (IDMap{131072, 65536}) {
		t.Errorf("%+v, %v", got, err)
	}
	for uids, gids := range map[string]string{
		"": "", "x": "x", "1 131072 65536\n": "1 131072 65536\n", good + good: good + good, good: "0 5 65536\n", "0 0 4294967296\n": "0 0 4294967296\n",
	} {
		if got, err := parseMaps([]byte(uids), []byte(gids)); !errors.Is(err, ErrForeign) {
			t.Errorf("%q and %q: %+v, %v", uids, gids, got, err)
		}
	}
}
