package engine

import (
	"context"
	"fmt"
	"sync"
)

// taskGroups keeps creates and deletes of tasks apart where they would hurt each other.
//
// All tasks of a group live in one shim. Each delete, and each create that fails, makes containerd
// ask the shim to shut down, which it does when it has no task left; a task that is just being
// created is not counted by it. So a create that overlaps the delete of the group's last task, or
// the failure of its first, is cut off ("ttrpc: closed"). A group therefore grants two kinds of turn:
//
//   - beside others, as long as one task stays in the shim for the whole turn;
//   - alone, where no such task is known. Whoever leaves the shim empty then waits for its end
//     before the turn is over.
type taskGroups struct {
	mu     sync.Mutex
	groups map[string]*taskGroup // guarded by mu, their fields as well
}

type taskGroup struct {
	users   int             // turns granted or waited for
	known   uint64          // the state of knowledge in which tasks was read; zero: never
	tasks   map[string]bool // tasks that the shim has; true while one is being deleted
	beside  int             // turns granted beside others
	alone   bool            // a turn alone is granted
	ending  bool            // the last wait for the shim's end gave up
	changed chan struct{}   // closed, and replaced, when a turn ends
}

// turn is the right to create or delete one task.
type turn struct {
	groups   *taskGroups
	name     string
	group    *taskGroup
	task     string
	deleting bool
	alone    bool
	known    uint64 // the state of knowledge when the turn was granted
}

func newTaskGroups() *taskGroups {
	return &taskGroups{groups: make(map[string]*taskGroup)}
}

// turnRequest asks for a turn to create or delete the task of a group. The number that known returns
// tells a new state of knowledge from an old one, and is never zero.
type turnRequest struct {
	group, task string
	deleting    bool
	known       func() uint64
}

// enter waits for a turn. Where the group's tasks were read in another state of knowledge, the turn
// is alone, and stale returns true.
func (g *taskGroups) enter(ctx context.Context, r turnRequest) (*turn, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	grp := g.groups[r.group]
	if grp == nil {
		grp = &taskGroup{tasks: make(map[string]bool), changed: make(chan struct{})}
		g.groups[r.group] = grp
	}
	grp.users++
	for {
		t := &turn{groups: g, name: r.group, group: grp, task: r.task, deleting: r.deleting, known: r.known()}
		if t.grantLocked() {
			return t, nil
		}
		changed := grp.changed
		g.mu.Unlock()
		var err error
		select {
		case <-changed:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		g.mu.Lock()
		if err != nil {
			g.forgetLocked(r.group, grp)
			return nil, fmt.Errorf("wait for other tasks of group %s: %w", r.group, err)
		}
	}
}

// grantLocked takes the turn if the group allows it now.
func (t *turn) grantLocked() bool {
	grp := t.group
	if grp.alone {
		return false
	}
	if grp.known == t.known && grp.staysWithout(t.task) {
		grp.beside++
	} else {
		if grp.beside > 0 {
			return false
		}
		grp.alone, t.alone = true, true
	}
	if _, ok := grp.tasks[t.task]; ok && t.deleting {
		grp.tasks[t.task] = true
	}
	return true
}

// staysWithout says whether another task than this one stays in the shim.
func (grp *taskGroup) staysWithout(task string) bool {
	for id, leaving := range grp.tasks {
		if id != task && !leaving {
			return true
		}
	}
	return false
}

// stale says whether the group's tasks have to be read from containerd first. Only a turn alone is.
func (t *turn) stale() bool {
	t.groups.mu.Lock()
	defer t.groups.mu.Unlock()
	return t.group.known != t.known
}

// candidates returns the tasks that the group may have beside those that containerd lists for it:
// a task that was created just now may be missing there.
func (t *turn) candidates() []string {
	t.groups.mu.Lock()
	defer t.groups.mu.Unlock()
	ids := []string{t.task}
	for id := range t.group.tasks {
		if id != t.task {
			ids = append(ids, id)
		}
	}
	return ids
}

// learn sets the group's tasks, as containerd has them.
func (t *turn) learn(tasks []string) {
	t.groups.mu.Lock()
	defer t.groups.mu.Unlock()
	t.group.tasks = make(map[string]bool, len(tasks))
	for _, id := range tasks {
		t.group.tasks[id] = false
	}
	t.group.known = t.known
}

// emptied says whether the shim has no task left when this turn's task is gone. Only a turn alone
// can find it so.
func (t *turn) emptied() bool {
	t.groups.mu.Lock()
	defer t.groups.mu.Unlock()
	if !t.alone {
		return false
	}
	_, own := t.group.tasks[t.task]
	return len(t.group.tasks) == 0 || own && len(t.group.tasks) == 1
}

// ending returns what setEnding set.
func (t *turn) ending() bool {
	t.groups.mu.Lock()
	defer t.groups.mu.Unlock()
	return t.group.ending
}

// setEnding notes that the group's shim was told to end and has not done so yet. It keeps the group
// in memory, so that the next create waits again.
func (t *turn) setEnding(ending bool) {
	t.groups.mu.Lock()
	defer t.groups.mu.Unlock()
	t.group.ending = ending
}

// outcome is what a turn did to its task.
type outcome int

const (
	taskPresent outcome = iota // in the shim
	taskAbsent                 // not in the shim
	taskUnknown                // containerd did not say; the group's tasks have to be read again
)

// leave ends the turn.
func (t *turn) leave(o outcome) {
	t.groups.mu.Lock()
	defer t.groups.mu.Unlock()
	grp := t.group
	switch o {
	case taskPresent:
		grp.tasks[t.task] = false
	case taskAbsent:
		delete(grp.tasks, t.task)
	case taskUnknown:
		grp.known = 0
	}
	if t.alone {
		grp.alone = false
	} else {
		grp.beside--
	}
	close(grp.changed)
	grp.changed = make(chan struct{})
	t.groups.forgetLocked(t.name, grp)
}

// forgetLocked drops one user of the group, and the group when nothing needs it any more.
func (g *taskGroups) forgetLocked(name string, grp *taskGroup) {
	if grp.users--; grp.users == 0 && len(grp.tasks) == 0 && !grp.ending {
		delete(g.groups, name)
	}
}
