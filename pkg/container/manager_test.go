package container

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/ocispec"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// node is a manager with what it stands on, so that a test can start it again.
// recordSandbox writes a sandbox as its own manager does.
// awaitExit waits until the container has exited.
func TestCreateFailureLeavesNothing(t *testing.T) {
	for _, step := range []string{"prepare", "mount", "record", "idmap"} {
		t.Run(step, func(t *testing.T) {
			n := newNode(t)
			n.engine.fail = step
			spec := containerSpec("a")
			spec.Mounts = []ocispec.Mount{{HostPath: t.TempDir(), ContainerPath: "/data"}}
			if _, err := n.Create(t.Context(), n.sb, spec); !errors.Is(err, errInjected) {
				t.Fatalf("got %v, want the injected error", err)
			}
			n.wantNothingLeft(t)
			n.engine.fail = ""
			if _, err := n.Create(t.Context(), n.sb, spec); err != nil {
				t.Errorf("the name is not free again: %v", err)
			}
		})
	}
}

func TestCreateNames(t *testing.T) {
	n := newNode(t)
	first, err := n.Create(t.Context(), n.sb, containerSpec("a"))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := n.Create(t.Context(), n.sb, containerSpec("a")); err != nil || again != first {
		t.Errorf("the same request: got %s, %v, want %s", again, err, first)
	}
	other := containerSpec("a")
	other.TTY = true
	if _, err := n.Create(t.Context(), n.sb, other); !errors.Is(err, ErrExists) {
		t.Errorf("another spec of the same name: got %v, want ErrExists", err)
	}
	if err := n.Start(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Create(t.Context(), n.sb, containerSpec("a")); !errors.Is(err, ErrExists) {
		t.Errorf("the name of a running container: got %v, want ErrExists", err)
	}
}

func TestCreateRefuses(t *testing.T) {
	stopped := func(sb *sandbox.Record, _ *Spec) { sb.Phase = sandbox.PhaseStopped }
	for _, tc := range []struct {
		name   string
		change func(*sandbox.Record, *Spec)
		want   error
	}{
		{"stopped sandbox", stopped, sandbox.ErrNotReady},
		{"unknown image", func(_ *sandbox.Record, s *Spec) { s.Image = "nobody/has" }, errdefs.ErrNotFound},
		{"another mapping", func(_ *sandbox.Record, s *Spec) {
			s.Namespaces.Requested = &ocispec.IDMapping{HostID: 7 << 16, Length: idpool.Unit}
		}, ErrInvalid},
		{"mapping without a user namespace", func(sb *sandbox.Record, s *Spec) {
			sb.Range, sb.Spec.Namespaces.User, sb.Pins.User = nil, nil, ""
			s.Namespaces.Requested = &ocispec.IDMapping{HostID: 1 << 20, Length: idpool.Unit}
		}, ErrInvalid},
		{"unknown user", func(_ *sandbox.Record, s *Spec) { s.Security.User.Name = "nobody-here" }, ocispec.ErrUserNotFound},
		{"source below a file", func(_ *sandbox.Record, s *Spec) {
			s.Mounts = []ocispec.Mount{{HostPath: "/etc/passwd/x", ContainerPath: "/data"}}
		}, ErrInvalid},
		{"unmapped uid", func(_ *sandbox.Record, s *Spec) {
			uid := int64(70000)
			s.Security.User.UID = &uid
		}, ocispec.ErrIDNotMapped},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := newNode(t)
			sb, spec := n.sb, containerSpec("a")
			tc.change(&sb, &spec)
			if _, err := n.Create(t.Context(), sb, spec); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			if got := n.engine.left(); len(got) > 0 {
				t.Errorf("left in the engine: %q", got)
			}
		})
	}
}

// A remapped pod's containers come with the mapping that was requested for it.
func TestCreateInRemappedSandbox(t *testing.T) {
	n := newNode(t)
	requested := &ocispec.IDMapping{HostID: 9 << 16, Length: idpool.Unit}
	n.sb.Spec.Namespaces.User.Requested = requested
	spec := containerSpec("a")
	spec.Namespaces.Requested = requested
	id, err := n.Create(t.Context(), n.sb, spec)
	if err != nil {
		t.Fatal(err)
	}
	got := n.engine.records[id].Spec.Linux.UIDMappings
	if len(got) != 1 || got[0].HostID != n.sb.Range.Start {
		t.Errorf("specification maps %v, want the effective range %s", got, n.sb.Range)
	}
}

func TestStartFailure(t *testing.T) {
	for _, step := range []string{"create task", "start task"} {
		t.Run(step, func(t *testing.T) {
			n := newNode(t)
			id, err := n.Create(t.Context(), n.sb, containerSpec("a"))
			if err != nil {
				t.Fatal(err)
			}
			n.engine.fail = step
			if err := n.Start(t.Context(), id); !errors.Is(err, errInjected) {
				t.Fatalf("got %v, want the injected error", err)
			}
			rec, err := n.Get(id)
			if err != nil || rec.State != StateExited || rec.Reason != ReasonCannotRun || rec.ExitCode != startErrorCode {
				t.Errorf("got %+v, %v", rec, err)
			}
			if err := n.Start(t.Context(), id); !errors.Is(err, ErrState) {
				t.Errorf("a second start: got %v, want ErrState", err)
			}
			if err := n.Remove(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			n.wantNothingLeft(t)
		})
	}
}

func TestExitIsRecorded(t *testing.T) {
	for _, tc := range []struct {
		code   uint32
		oom    bool
		reason string
	}{{0, false, ReasonCompleted}, {3, false, ReasonError}, {137, true, ReasonOOMKilled}} {
		t.Run(tc.reason, func(t *testing.T) {
			n := newNode(t)
			id := n.mustStart(t, "a")
			if tc.oom {
				n.NoteOOM(id)
			}
			n.engine.end(id, tc.code)
			rec := n.awaitExit(t, id)
			if rec.ExitCode != int32(tc.code) || rec.Reason != tc.reason || rec.FinishedAt.IsZero() {
				t.Errorf("got code %d, reason %s, finished %s", rec.ExitCode, rec.Reason, rec.FinishedAt)
			}
			if len(n.engine.tasks)+len(n.engine.mounted) > 0 {
				t.Errorf("task or root filesystem is left: %q", n.engine.left())
			}
		})
	}
}

func TestStop(t *testing.T) {
	t.Run("stop signal", func(t *testing.T) {
		n := newNode(t)
		id := n.mustStart(t, "a")
		if err := n.Stop(t.Context(), id, time.Minute); err != nil {
			t.Fatal(err)
		}
		if rec, _ := n.Get(id); rec.ExitCode != 128+2 {
			t.Errorf("exit code %d, want that of the image's SIGINT", rec.ExitCode)
		}
		if err := n.Stop(t.Context(), id, time.Minute); err != nil {
			t.Errorf("a second stop: %v", err)
		}
	})
	t.Run("kill after grace", func(t *testing.T) {
		n := newNode(t)
		n.engine.ignoreTerm = true
		id := n.mustStart(t, "a")
		if err := n.Stop(t.Context(), id, 20*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		if rec, _ := n.Get(id); rec.ExitCode != 128+killSignal {
			t.Errorf("exit code %d, want that of SIGKILL", rec.ExitCode)
		}
	})
	t.Run("all of a sandbox", func(t *testing.T) {
		n := newNode(t)
		n.engine.ignoreTerm = true
		a, b := n.mustStart(t, "a"), n.mustStart(t, "b")
		if err := n.StopAll(t.Context(), n.sb.ID); err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{a, b} {
			if rec, _ := n.Get(id); rec.State != StateExited {
				t.Errorf("container %s is %s", id, rec.State)
			}
		}
		if len(n.engine.forgotten) == 0 {
			t.Error("the pod's idmapped layers are still held")
		}
	})
}

func TestRemoveIsRepeatable(t *testing.T) {
	n := newNode(t)
	id := n.mustStart(t, "a")
	n.engine.fail = "remove snapshot"
	if err := n.Remove(t.Context(), id); !errors.Is(err, errInjected) {
		t.Fatalf("got %v, want the injected error", err)
	}
	if _, err := n.Get(id); err != nil {
		t.Fatalf("the record went before what it stands for: %v", err)
	}
	n.engine.fail = ""
	if err := n.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	n.wantNothingLeft(t)
}

func TestRecover(t *testing.T) {
	t.Run("running", func(t *testing.T) {
		n := newNode(t)
		id := n.mustStart(t, "a")
		n.restart(t)
		if err := n.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		n.engine.end(id, 7)
		if rec := n.awaitExit(t, id); rec.ExitCode != 7 {
			t.Errorf("exit code %d, want 7", rec.ExitCode)
		}
	})
	t.Run("task is gone", func(t *testing.T) {
		n := newNode(t)
		id := n.mustStart(t, "a")
		n.Close()
		delete(n.engine.tasks, id)
		n.restart(t)
		if err := n.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		if rec, _ := n.Get(id); rec.State != StateExited || rec.Reason != ReasonUnknown || rec.ExitCode != UnknownExitCode {
			t.Errorf("got %+v", rec)
		}
	})
	t.Run("half made", func(t *testing.T) {
		n := newNode(t)
		rec := n.newRecord(n.sb, containerSpec("a"), n.engine.images["busybox"], n.opts.Handlers["runc"])
		if _, err := n.reserve(rec); err != nil {
			t.Fatal(err)
		}
		n.engine.snapshots[rec.ID] = true
		if err := os.MkdirAll(n.Paths(rec.ID).Rootfs, 0o711); err != nil {
			t.Fatal(err)
		}
		n.restart(t)
		if err := n.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		n.wantNothingLeft(t)
	})
	t.Run("start was interrupted", func(t *testing.T) {
		n := newNode(t)
		id, err := n.Create(t.Context(), n.sb, containerSpec("a"))
		if err != nil {
			t.Fatal(err)
		}
		n.engine.tasks[id] = &fakeTask{exited: make(chan struct{})}
		n.restart(t)
		// The cause is reported: somebody asked for that start.
		_ = n.Recover(t.Context())
		if rec, _ := n.Get(id); rec.State != StateExited || rec.Reason != ReasonStartError || len(n.engine.tasks) > 0 {
			t.Errorf("got %+v, tasks %v", rec, n.engine.tasks)
		}
	})
	t.Run("sandbox stopped", func(t *testing.T) {
		n := newNode(t)
		id, err := n.Create(t.Context(), n.sb, containerSpec("a"))
		if err != nil {
			t.Fatal(err)
		}
		n.sb.Phase = sandbox.PhaseStopped
		n.restart(t)
		if err := n.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		if rec, _ := n.Get(id); rec.State != StateExited {
			t.Errorf("container is %s", rec.State)
		}
	})
	t.Run("engine away", func(t *testing.T) {
		n := newNode(t)
		id := n.mustStart(t, "a")
		n.restart(t)
		n.engine.fail = "list tasks"
		if err := n.Recover(context.Background()); !errors.Is(err, errInjected) {
			t.Fatalf("got %v, want the injected error", err)
		}
		if rec, _ := n.Get(id); rec.State != StateRunning {
			t.Errorf("container is %s without anybody having asked containerd", rec.State)
		}
	})
}

// A sandbox that was halted takes no container, whatever the caller's copy of its record says.
func TestHaltedSandboxTakesNothing(t *testing.T) {
	n := newNode(t)
	id, err := n.Create(t.Context(), n.sb, containerSpec("a"))
	if err != nil {
		t.Fatal(err)
	}
	stale := n.sb
	n.sb.Phase = sandbox.PhaseStopped
	n.recordSandbox(t, n.sb)
	if _, err := n.Create(t.Context(), stale, containerSpec("b")); !errors.Is(err, sandbox.ErrNotReady) {
		t.Errorf("create: got %v, want ErrNotReady", err)
	}
	if err := n.Start(t.Context(), id); !errors.Is(err, sandbox.ErrNotReady) {
		t.Errorf("start: got %v, want ErrNotReady", err)
	}
	if rec, _ := n.Get(id); rec.State != StateCreated {
		t.Errorf("container is %s, want it as it was", rec.State)
	}
}

// A sandbox that is halted between the check and the launch ends the start.
func TestSandboxHaltedDuringStart(t *testing.T) {
	n := newNode(t)
	id, err := n.Create(t.Context(), n.sb, containerSpec("a"))
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	n.opts.Sandbox = func(string) (sandbox.Record, error) {
		sb := n.sb
		if asked++; asked > 1 {
			sb.Phase = sandbox.PhaseStopped
		}
		return sb, nil
	}
	n.restart(t)
	if err := n.Start(t.Context(), id); !errors.Is(err, sandbox.ErrNotReady) {
		t.Fatalf("got %v, want ErrNotReady", err)
	}
	if len(n.engine.tasks) > 0 {
		t.Error("a task was made in a halted sandbox")
	}
}
