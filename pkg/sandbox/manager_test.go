package sandbox

import (
	"errors"
	"strings"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/ocispec"
	"github.com/userns-shim/userns-shim/pkg/state"
)

var errInjected = errors.New("injected")

// fakeHost records what the manager asks of kernel and network, and fails the step named in fail.
// node is a manager with what it stands on, so that a test can start it again.
// restart builds the manager again from the database, as a new process does.
func TestRunIsIdempotent(t *testing.T) {
	n := newNode(t, nil)
	first := n.mustRun(t, podSpec("a"))
	if again := n.mustRun(t, podSpec("a")); again.ID != first.ID {
		t.Errorf("the same request made sandbox %s beside %s", again.ID, first.ID)
	}
	other := podSpec("a")
	other.Hostname = "elsewhere"
	if _, err := n.Run(t.Context(), other); !errors.Is(err, ErrExists) {
		t.Errorf("another spec of the same name: got %v, want ErrExists", err)
	}
	if err := n.Stop(t.Context(), first.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Run(t.Context(), podSpec("a")); !errors.Is(err, ErrExists) {
		t.Errorf("the name of a stopped sandbox: got %v, want ErrExists", err)
	}
}

func TestRunFailureLeavesNothing(t *testing.T) {
	for _, step := range []string{"create", "add", "sysctls"} {
		t.Run(step, func(t *testing.T) {
			n := newNode(t, func(o *Options) { o.UnprivilegedPorts = true })
			n.host.fail = step
			if _, err := n.Run(t.Context(), podSpec("a")); !errors.Is(err, errInjected) {
				t.Fatalf("got %v, want the injected error", err)
			}
			if got := n.table.All(); len(got) != 0 {
				t.Errorf("records are left: %v", got)
			}
			if got := n.opts.Pool.Stats().Pool; got.Allocated != 0 {
				t.Errorf("%d ranges are left", got.Allocated)
			}
			n.host.setFail("")
			n.mustRun(t, podSpec("a"))
		})
	}
}

func TestExhaustionAndRelease(t *testing.T) {
	n := newNode(t, nil)
	first := n.mustRun(t, podSpec("a"))
	n.mustRun(t, podSpec("b"))
	if _, err := n.Run(t.Context(), podSpec("c")); !errors.Is(err, idpool.ErrExhausted) {
		t.Fatalf("third pod of a pool of two: got %v, want ErrExhausted", err)
	}
	if err := n.Remove(t.Context(), first.ID); err != nil {
		t.Fatal(err)
	}
	n.mustRun(t, podSpec("c"))
}

func TestNetworkIsTornDownOnce(t *testing.T) {
	n := newNode(t, nil)
	rec := n.mustRun(t, podSpec("a"))
	n.host.setFail("del")
	if err := n.Stop(t.Context(), rec.ID); !errors.Is(err, errInjected) {
		t.Fatalf("got %v, want the injected error", err)
	}
	if got, _ := n.Get(rec.ID); got.Phase != PhaseStopped || !got.NetworkUp {
		t.Errorf("after a failed CNI DEL: phase %s, network up %t", got.Phase, got.NetworkUp)
	}
	n.host.setFail("")
	for range 2 {
		if err := n.Stop(t.Context(), rec.ID); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.Remove(t.Context(), rec.ID); err != nil {
		t.Fatal(err)
	}
	if got := n.host.count("del"); got != 2 {
		t.Errorf("CNI DEL ran %d times, want once that failed and once that succeeded", got)
	}
}

func TestRecover(t *testing.T) {
	t.Run("half made", func(t *testing.T) {
		n := newNode(t, nil)
		rec, _, err := n.reserve(t.Context(), podSpec("a"))
		if err != nil {
			t.Fatal(err)
		}
		n.restart(t)
		if err := n.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := n.Get(rec.ID); !errors.Is(err, ErrNotFound) || n.opts.Pool.Stats().Pool.Allocated != 0 {
			t.Errorf("a half-made sandbox survived: %v, %+v", err, n.opts.Pool.Stats().Pool)
		}
	})
	t.Run("alive", func(t *testing.T) {
		n := newNode(t, nil)
		rec := n.mustRun(t, podSpec("a"))
		n.restart(t)
		if err := n.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		got, err := n.Get(rec.ID)
		if err != nil || !state.Same(got, rec) {
			t.Errorf("got %+v, %v, want %+v", got, err, rec)
		}
	})
	t.Run("reboot", func(t *testing.T) {
		n := newNode(t, nil)
		rec := n.mustRun(t, podSpec("a"))
		n.opts.BootID = "boot-2"
		n.restart(t)
		if err := n.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		got, err := n.Get(rec.ID)
		if err != nil || got.Phase != PhaseStopped || *got.Range != *rec.Range {
			t.Errorf("got %+v, %v, want it stopped with its range", got, err)
		}
	})
	t.Run("pins lost", func(t *testing.T) {
		n := newNode(t, nil)
		rec := n.mustRun(t, podSpec("a"))
		n.host.alive = errInjected
		if err := n.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, _ := n.Get(rec.ID); got.Phase != PhaseStopped {
			t.Errorf("phase %s, want stopped", got.Phase)
		}
	})
}

func TestUserNamespacePolicy(t *testing.T) {
	hostPID := podSpec("host-pid")
	hostPID.Namespaces.User, hostPID.Namespaces.PID = nil, ModeNode
	noUser := podSpec("plain")
	noUser.Namespaces.User = nil
	for _, tc := range []struct {
		name    string
		spec    Spec
		handler string
		ranged  bool
		err     error
	}{
		{"opt-in, asked", podSpec("a"), "", true, nil},
		{"opt-in, not asked", noUser, "runc", false, nil},
		{"always, not asked", noUser, "always", true, nil},
		{"always, hostPID", hostPID, "always", false, nil},
		{"never, asked", podSpec("a"), "never", false, ErrNoUserNamespaces},
		{"never, not asked", noUser, "never", false, nil},
		{"unknown handler", noUser, "kata", false, ErrUnknownHandler},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := newNode(t, nil)
			tc.spec.RuntimeHandler = tc.handler
			rec, err := n.Run(t.Context(), tc.spec)
			if !errors.Is(err, tc.err) {
				t.Fatalf("got %v, want %v", err, tc.err)
			}
			if got := rec.Range != nil; err == nil && got != tc.ranged {
				t.Errorf("has a range: %t, want %t", got, tc.ranged)
			}
		})
	}
}

func TestClaimAndConflict(t *testing.T) {
	claim := func(name string, start uint32) Spec {
		spec := podSpec(name)
		spec.Namespaces.User.Requested = &ocispec.IDMapping{HostID: start, Length: idpool.Unit}
		return spec
	}
	const free = 2013265920 // in kubelet's extents
	t.Run("remap", func(t *testing.T) {
		n := newNode(t, nil)
		if rec := n.mustRun(t, claim("a", free)); rec.Range.Start != free {
			t.Errorf("got %s, want the mapping that was requested", rec.Range)
		}
		if rec := n.mustRun(t, claim("b", free)); rec.Range.Start == free {
			t.Error("two pods have one range")
		}
		if rec := n.mustRun(t, claim("terminal", 0xFFFF0000)); rec.Range.Start == 0xFFFF0000 {
			t.Error("a pod has the range that the kernel cannot map")
		}
	})
	t.Run("with a pod that has ended", func(t *testing.T) {
		var conflicts []error
		n := newNode(t, func(o *Options) {
			o.ObserveLease = func(l Lease) { conflicts = append(conflicts, l.Conflict) }
		})
		holder := n.mustRun(t, claim("a", free))
		n.mustRun(t, claim("b", free))
		if err := n.Stop(t.Context(), holder.ID); err != nil {
			t.Fatal(err)
		}
		if rec := n.mustRun(t, claim("c", free)); rec.Range.Start == free || !strings.Contains(rec.Remapped, ErrHolderEnded.Error()) {
			t.Errorf("got %s, because %q", rec.Range, rec.Remapped)
		}
		if len(conflicts) != 3 || errors.Is(conflicts[1], ErrHolderEnded) || !errors.Is(conflicts[2], ErrHolderEnded) || !errors.Is(conflicts[2], idpool.ErrConflict) {
			t.Errorf("the conflicts are %v: want one with a pod, and then one with a pod that has ended", conflicts)
		}
	})
	t.Run("reject", func(t *testing.T) {
		n := newNode(t, func(o *Options) { o.RejectConflicts = true })
		n.mustRun(t, claim("a", free))
		if _, err := n.Run(t.Context(), claim("b", free)); !errors.Is(err, ErrConflict) {
			t.Errorf("got %v, want ErrConflict", err)
		}
	})
	t.Run("next attempt", func(t *testing.T) {
		n := newNode(t, nil)
		first := n.mustRun(t, claim("a", free))
		again := claim("a", free)
		again.Metadata.Attempt = 1
		if rec := n.mustRun(t, again); *rec.Range != *first.Range {
			t.Errorf("attempt 1 has %s, attempt 0 %s", rec.Range, first.Range)
		}
	})
}

func TestStopRetriesNamespaces(t *testing.T) {
	n := newNode(t, nil)
	rec := n.mustRun(t, podSpec("a"))
	n.host.setFail("remove")
	if err := n.Stop(t.Context(), rec.ID); !errors.Is(err, errInjected) {
		t.Fatalf("got %v, want the injected error", err)
	}
	n.host.setFail("")
	if err := n.Stop(t.Context(), rec.ID); err != nil {
		t.Fatal(err)
	}
	if got := n.host.count("remove"); got != 2 {
		t.Errorf("namespaces were removed %d times, want again after the failure", got)
	}
}

// Two requests may remove one sandbox at once: the later one finds its work done.
func TestTeardownOfARemovedSandbox(t *testing.T) {
	n := newNode(t, nil)
	rec := n.mustRun(t, podSpec("a"))
	if err := n.Remove(t.Context(), rec.ID); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{"Halt": n.Halt(rec.ID), "Stop": n.Stop(t.Context(), rec.ID), "Remove": n.Remove(t.Context(), rec.ID)} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// kubelet takes the sandbox that was created last for the pod's present one.
func TestAttemptsAreCreatedInTheirOrderWhenTheClockIsSetBack(t *testing.T) {
	n := newNode(t, nil)
	spec := podSpec("a")
	first, err := n.Run(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	n.opts.Clock = clocktesting.NewFakePassiveClock(first.CreatedAt.Add(-time.Hour))
	n.restart(t)
	spec.Metadata.Attempt++
	second, err := n.Run(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if !second.CreatedAt.After(first.CreatedAt) {
		t.Errorf("attempt 1 was created at %s, attempt 0 at %s", second.CreatedAt, first.CreatedAt)
	}
}
