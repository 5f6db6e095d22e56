package sandbox

import "github.com/userns-shim/userns-shim/pkg/state"

// shimGroup chooses the shim of a new sandbox. Where pods of its handler share shims, that is the fullest one
// that has room, so that shims which lose pods come to an end; and otherwise the sandbox's own, which is "".
//
// It reads the records inside the transaction: sandboxes that are made at the same time must see each other.
func (m *Manager) shimGroup(tx *state.Tx, rec Record) (string, error) {
	handler := m.handlerName(rec.Spec)
	room := m.opts.PodsPerShim[handler]
	if room < 2 {
		return "", nil
	}
	pods := map[string]int{}
	err := m.table.ForEach(tx, func(other Record) error {
		if other.ID != rec.ID && other.Phase != PhaseStopped && m.handlerName(other.Spec) == handler {
			pods[other.Group()]++
		}
		return nil
	})
	best := rec.ID
	for group, n := range pods {
		if n < room && (n > pods[best] || n == pods[best] && group < best) {
			best = group
		}
	}
	return best, err
}
