package sandbox

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/userns-shim/userns-shim/pkg/state"
)

// key is the name under which a sandbox is reserved. None of the parts can contain the
// separator: they are DNS names, a UID and a number, which pkg/cri has checked.
func (md Metadata) key() string {
	return strings.Join([]string{md.Namespace, md.Name, md.UID, strconv.FormatUint(uint64(md.Attempt), 10)}, "/")
}

// samePod says whether two sandboxes are attempts of one pod.
func (md Metadata) samePod(other Metadata) bool {
	other.Attempt = md.Attempt
	return md == other
}

// Bucket holds the records of sandboxes in the state database.
const Bucket = "sandboxes"

// OpenTable reads the records of sandboxes. The mirror may be nil.
func OpenTable(db *state.DB, mirror *state.Mirror) (*state.Table[Record], error) {
	return state.OpenTable[Record](state.TableOptions{
		DB: db, Mirror: mirror, Rows: Bucket, Names: "sandbox-names", NotFound: ErrNotFound, Ambiguous: ErrAmbiguous,
	})
}

// CheckReady reads the sandbox in the transaction of what depends on it: a container that is
// recorded after this in the same transaction is seen by whoever halts the sandbox later.
func CheckReady(tx *state.Tx, id string) error {
	rec, err := state.NewBucket[Record](Bucket).Get(tx, id)
	if errors.Is(err, state.ErrNotFound) {
		return fmt.Errorf("%w: %q", ErrNotFound, id)
	}
	if err != nil {
		return err
	}
	if rec.Phase != PhaseReady {
		return fmt.Errorf("sandbox %s: %w: it is %s", id, ErrNotReady, rec.Phase)
	}
	return nil
}

// reserveName returns the ready sandbox that holds rec's name with the same spec, or takes
// the name for rec.
func (m *Manager) reserveName(tx *state.Tx, rec Record) (*Record, error) {
	holder, taken, err := m.table.Reserve(tx, rec)
	if err != nil || !taken {
		return nil, err
	}
	if holder.Phase == PhaseReady && state.Same(holder.Spec, rec.Spec) {
		return &holder, nil
	}
	return nil, fmt.Errorf("%w: %s belongs to sandbox %s (%s)", ErrExists, rec.Name(), holder.ID, holder.Phase)
}
