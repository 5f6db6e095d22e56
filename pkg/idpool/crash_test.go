package idpool_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/state"
)

const (
	// crashChildEnv makes the test binary a writer on the database that it names.
	crashChildEnv = "IDPOOL_CRASH_CHILD"
	// crashCyclesEnv is the number of acknowledged cycles of acquire and release
	// after which the test ends, where it is not to be crashCycles.
	crashCyclesEnv = "IDPOOL_CRASH_CYCLES"

	crashCycles = 10_000
	// crashTime is enough on a disk whose commits take 10 ms, and on a machine of which others leave a tenth. It is
	// less than that of a tier, whose end says less.
	crashTime    = 8 * time.Minute
	crashWriters = 6
	// Each writer holds up to two ranges, and there are fewer, so that they are fought for.
	crashRanges = 2*crashWriters - 2
)

func TestMain(m *testing.M) {
	if path := os.Getenv(crashChildEnv); path != "" {
		if err := crashChild(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// node is a database with a pool in it.
type node struct {
	db   *state.DB
	pool *idpool.Pool
}

func openNode(path string) (*node, error) {
	db, err := state.Open(state.Options{Path: path})
	if err != nil {
		return nil, err
	}
	n := &node{db: db}
	err = db.View(func(tx *state.Tx) error {
		n.pool, err = idpool.Load(tx.Raw("idpool"), idpool.Options{
			Extents:       []idpool.Range{{Start: 2113798144, Length: crashRanges * idpool.Unit}},
			QuarantineAge: -1,
		})
		return err
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return n, nil
}

func (n *node) acquire(pod idpool.PodUID, sandbox string) (r idpool.Range, err error) {
	err = n.db.Update(func(tx *state.Tx) error {
		r, err = n.pool.Acquire(tx.Raw("idpool"), pod, sandbox, idpool.Unit)
		return err
	})
	return r, err
}

func (n *node) release(sandbox string) error {
	return n.db.Update(func(tx *state.Tx) error { return n.pool.Release(tx.Raw("idpool"), sandbox) })
}

// crashChild cycles with several writers until it is killed. To standard output,
// which the witness reads, go the intent before each request and the
// acknowledgement behind it:
//
//	try SANDBOX            about to acquire
//	not SANDBOX            nothing was free
//	has SANDBOX START      acquired, on disk
//	end SANDBOX            about to release
//	out SANDBOX            released, on disk
func crashChild(path string) error {
	n, err := openNode(path)
	if err != nil {
		return err
	}
	for _, a := range n.pool.List() {
		for _, sandbox := range a.Sandboxes { // of a child that was killed
			fmt.Fprintln(os.Stdout, "end", sandbox)
			if err := n.release(sandbox); err != nil {
				return err
			}
			fmt.Fprintln(os.Stdout, "out", sandbox)
		}
	}
	failed := make(chan error, crashWriters)
	for w := range crashWriters {
		go func() { failed <- n.cycle(fmt.Sprintf("%d-%d", os.Getpid(), w)) }()
	}
	return <-failed // the process ends with the first writer
}

// cycle acquires for one sandbox after the other, and releases each when it has the next or there is none: between the two
// it holds a range for as long as others take for their commits.
func (n *node) cycle(writer string) error {
	held := ""
	for i := 0; ; i++ {
		sandbox := fmt.Sprintf("%s-%d", writer, i)
		fmt.Fprintln(os.Stdout, "try", sandbox)
		r, err := n.acquire(idpool.PodUID("pod-"+sandbox), sandbox)
		if errors.Is(err, idpool.ErrExhausted) {
			fmt.Fprintln(os.Stdout, "not", sandbox)
			sandbox = ""
		} else if err != nil {
			return err
		} else {
			fmt.Fprintln(os.Stdout, "has", sandbox, r.Start)
		}
		if held != "" {
			fmt.Fprintln(os.Stdout, "end", held)
			if err := n.release(held); err != nil {
				return err
			}
			fmt.Fprintln(os.Stdout, "out", held)
		}
		held = sandbox
	}
}

// witness knows, outside of the process that is killed, what was acknowledged.
type witness struct {
	mayHold map[string]bool   // asked for, or not released for certain
	holds   map[string]uint32 // acknowledged and not about to be released
	owner   map[uint32]string // the same the other way round
	cycles  int               // releases acknowledged
	refused int               // requests for which nothing was free
}

// hear takes one line of the child. A line that was cut off by the kill is no
// acknowledgement.
func (w *witness) hear(line string) error {
	fields := strings.Fields(line)
	if len(fields) < 2 || !strings.HasSuffix(line, "\n") {
		return nil
	}
	sandbox := fields[1]
	switch fields[0] {
	case "try":
		w.mayHold[sandbox] = true
	case "has":
		start, err := strconv.ParseUint(fields[2], 10, 32)
		if err != nil {
			return err
		}
		if other := w.owner[uint32(start)]; other != "" {
			return fmt.Errorf("range at %d was given to %s while %s holds it", start, sandbox, other)
		}
		w.owner[uint32(start)], w.holds[sandbox] = sandbox, uint32(start)
	case "end":
		delete(w.owner, w.holds[sandbox])
		delete(w.holds, sandbox)
	case "not":
		delete(w.mayHold, sandbox)
		w.refused++
	case "out":
		delete(w.mayHold, sandbox)
		w.cycles++
	}
	return nil
}

// compare checks the database that the kill left behind.
func (w *witness) compare(n *node) error {
	for sandbox, start := range w.holds {
		a, ok := n.pool.Lookup(sandbox)
		if !ok || a.Range.Start != start || a.State != idpool.StateAllocated {
			return fmt.Errorf("%s was told that it holds %d, the ledger says %+v", sandbox, start, a)
		}
	}
	for _, a := range n.pool.List() {
		for _, sandbox := range a.Sandboxes {
			if !w.mayHold[sandbox] {
				return fmt.Errorf("the ledger gives %s to %s, which was told that it is released", a.Range, sandbox)
			}
		}
	}
	return n.db.View(func(tx *state.Tx) error { return n.pool.Verify(tx.Raw("idpool")) })
}

// TestKilledWriters kills a process with several writers at random moments, opens
// what it left, and compares that with what the process had acknowledged: in 10,000 cycles over all its lives
// nothing of it is lost, and no range is held twice, within a life or over two.
func TestKilledWriters(t *testing.T) {
	want, began := crashCycles/idpool.RaceFactor, time.Now()
	if s := os.Getenv(crashCyclesEnv); s != "" {
		var err error
		if want, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "state", "state.db")
	w := &witness{mayHold: map[string]bool{}, holds: map[string]uint32{}, owner: map[uint32]string{}}
	kills, holding := 0, 0
	for w.cycles < want {
		if time.Since(began) > crashTime {
			t.Fatalf("%d cycles and %d kills in %v", w.cycles, kills, crashTime)
		}
		runAndKill(t, path, w)
		kills++
		if len(w.holds) > 0 {
			holding++
		}
		n, err := openNode(path)
		if err != nil {
			t.Fatalf("after kill %d: %v", kills, err)
		}
		if err := errors.Join(w.compare(n), n.db.Close()); err != nil {
			t.Fatalf("after kill %d: %v", kills, err)
		}
	}
	t.Logf("%d cycles of acquire and release by %d writers over %d ranges in %v; %d kills, in %d of them a range was held; %d requests found none free",
		w.cycles, crashWriters, crashRanges, time.Since(began).Round(time.Second), kills, holding, w.refused)
	if holding == 0 {
		t.Error("no kill met a range that was held: this test shows nothing")
	}
}

// runAndKill lets a child work for a moment and kills it.
func runAndKill(t *testing.T, path string, w *witness) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), crashChildEnv+"="+path)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// The time counts from the first line on, so that slow starts do not make
	// every kill hit the start.
	delay := rand.N(150 * time.Millisecond)
	var once sync.Once
	var killer *time.Timer
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		once.Do(func() { killer = time.AfterFunc(delay, func() { _ = cmd.Process.Kill() }) })
		if herr := w.hear(line); herr != nil {
			t.Error(herr)
		}
		if errors.Is(err, io.EOF) {
			break
		}
	}
	killer.Stop()
	err = cmd.Wait()
	if cmd.ProcessState.ExitCode() != -1 || stderr.Len() > 0 {
		t.Fatalf("the child was not just killed: %v\n%s", err, stderr.String())
	}
}
