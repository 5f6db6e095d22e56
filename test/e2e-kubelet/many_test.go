package e2ekubelet

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

// TestFiftyPodsAtOnce creates 50 pods at once, deletes them, and so on until there were 200. Every other one has a user namespace.
// Nothing is left of them then, and no range was given out twice.
func TestFiftyPodsAtOnce(t *testing.T) {
	n := sharedNode(t)
	for round := range 4 {
		began := time.Now()
		var pods []*pod
		for i := range 50 {
			pods = append(pods, n.run(t, i%2 == 1, sleeper))
		}
		n.awaitReady(t, pods)
		up := time.Now()
		seen := map[uint32]*pod{}
		for i, p := range pods {
			if i%2 == 1 {
				continue
			}
			got := p.wantRange(t).HostID
			if other := seen[got]; other != nil {
				t.Errorf("%s and %s have the range %d", p.name, other.name, got)
			}
			seen[got] = p
		}
		checked := time.Now()
		for _, p := range pods {
			p.delete(t)
		}
		for _, p := range pods {
			p.remove(t)
		}
		t.Logf("round %d: 50 pods are ready after %.1f s and gone %.1f s after their deletion", round, up.Sub(began).Seconds(), time.Since(checked).Seconds())
	}
	found, err := n.leftBehind(context.WithoutCancel(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	for _, thing := range found {
		t.Errorf("left behind: %s", thing)
	}
}

// TestPodsDeletedWhileTheyStart deletes each of some pods at another moment of its start. That nothing is left of them is held with
// the other tests, at the end.
func TestPodsDeletedWhileTheyStart(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *node, hostUsers bool) {
		var began []*pod
		for i := range 10 {
			p := n.run(t, hostUsers, sleeper)
			began = append(began, p)
			time.Sleep(time.Duration(i) * 100 * time.Millisecond) // the moment is what varies
			p.delete(t)
		}
		for _, p := range began {
			p.remove(t)
		}
	})
}

// awaitReady asks for all pods in one go.
func (n *node) awaitReady(t *testing.T, pods []*pod) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d pods are ready", len(pods)), func() error {
		all, err := n.client.pods(t.Context())
		if err != nil {
			return err
		}
		missing := map[string]error{}
		for _, p := range pods {
			missing[p.name] = errors.New("unknown to kubelet")
		}
		for i := range all {
			if missing[all[i].Name] = isReady(&all[i]); missing[all[i].Name] == nil {
				delete(missing, all[i].Name)
			}
		}
		for name, err := range missing {
			return fmt.Errorf("%d are not, among them %s: %w", len(missing), name, err)
		}
		return nil
	})
}
