package container

import (
	"time"

	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// creationTime is now, or just after the pod's latest container of that name where the clock was set back
// since then: kubelet takes the latest for the present one, over all sandboxes of the pod.
func (m *Manager) creationTime(sb sandbox.Record, name string) time.Time {
	now := latest(m.opts.Clock.Now(), sb.CreatedAt)
	for _, rec := range m.table.All() {
		if rec.Spec.Metadata.Name != name || now.After(rec.CreatedAt) {
			continue
		}
		other, err := m.opts.Sandbox(rec.SandboxID)
		if err == nil && other.Spec.Metadata.UID == sb.Spec.Metadata.UID {
			now = rec.CreatedAt.Add(time.Nanosecond)
		}
	}
	return now
}

// latest keeps times in their order where the wall clock was set back in between. Rounding makes them times of
// that clock alone.
func latest(times ...time.Time) time.Time {
	var last time.Time
	for _, t := range times {
		if t = t.Round(0); t.After(last) {
			last = t
		}
	}
	return last
}
