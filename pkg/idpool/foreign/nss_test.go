package foreign

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/userns-shim/userns-shim/pkg/idpool"
)

// fakeGetent is a program in place of getent.
func fakeGetent(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "getent")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestNames(t *testing.T) {
	id := unit(1).Start + 7
	getent := fakeGetent(t, fmt.Sprintf(`case $1 in
passwd) echo root:x:0:0::/root:/bin/sh; echo joe:x:%d:100::/:/bin/sh; echo userns-web-0:x:%d:0::/:/bin/false; echo nonsense; echo a:b:c;;
group) echo "staff:x:%d:joe,ann";;
esac
`, id, id, id))
	wantOwners(t, look(t, Names(Getent(getent)), &fakeLedger{}),
		Owner{Kind: KindUser, Range: idpool.Range{Start: id, Length: 1}, Who: "joe"},
		Owner{Kind: KindGroup, Range: idpool.Range{Start: id, Length: 1}, Who: "staff"})
}

func TestNamesOfTheRealNameService(t *testing.T) {
	var f found
	if err := Names(Getent("getent")).find(t.Context(), claimsOf(&everybody{}), &f); err != nil {
		t.Fatal(err)
	}
	for _, o := range f.owners {
		if o.Kind == KindUser && o.Who == "root" && o.Range.Start == 0 {
			return
		}
	}
	t.Errorf("root is not among %+v", f.owners)
}

// everybody is a ledger of all ids.
type everybody struct{ fakeLedger }

func (everybody) Extents(idpool.Segment) []idpool.Range {
	return []idpool.Range{{Start: 0, Length: 1<<32 - 1}}
}

func TestNamesThatCannotBeListed(t *testing.T) {
	for script, says := range map[string]string{"exit 3\n": "", "echo broken >&2; exit 1\n": "exit status 1"} {
		var f found
		err := Names(Getent(fakeGetent(t, script))).find(t.Context(), claimsOf(&fakeLedger{}), &f)
		if says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Errorf("%q gives %v, want %q", script, err, says)
		}
	}
	var f found
	if err := Names(Getent("/nonexistent/getent")).find(t.Context(), claimsOf(&fakeLedger{}), &f); err == nil {
		t.Error("a path where there is no program gives no error")
	}
	if err := Names(Getent("no-such-program-getent")).find(t.Context(), claimsOf(&fakeLedger{}), &f); err != nil {
		t.Errorf("a node without getent: %v", err)
	}
}

// TestNamesThatHang: the child that hangs is killed, with its children, which hold its output open.
func TestNamesThatHang(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	getent := fakeGetent(t, fmt.Sprintf("trap '' TERM\nsleep 1000 &\necho $$ $! > %s\nwait\n", pids))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // should there be no child
	defer cancel()
	go func() {
		for ctx.Err() == nil {
			if text, _ := os.ReadFile(pids); strings.HasSuffix(string(text), "\n") {
				cancel()
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	ended := make(chan error, 1)
	go func() {
		var f found
		ended <- Names(Getent(getent)).find(ctx, claimsOf(&fakeLedger{}), &f)
	}()
	<-ctx.Done()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want that of the context", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it goes on after its context")
	}
	text, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range strings.Fields(string(text)) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(5 * time.Second); !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) && !zombie(pid); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("process %d lives on", pid)
			}
		}
	}
}

func zombie(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(text), ") Z ")
}

// TestForEachLineIsBounded: a group can have any number of members.
func TestForEachLineIsBounded(t *testing.T) {
	long := "big:x:5:" + strings.Repeat("m", 3*maxLine)
	var lines []string
	if err := forEachLine(strings.NewReader(long+"\nnext:x:6:\nlast"), func(l string) { lines = append(lines, l) }); err != nil {
		t.Fatal(err)
	}
	if len(lines) != 3 || len(lines[0]) != maxLine || lines[1] != "next:x:6:\n" || lines[2] != "last" {
		t.Errorf("%d lines, the first of %d bytes", len(lines), len(lines[0]))
	}
	broken := errors.New("broken")
	if err := forEachLine(io.MultiReader(strings.NewReader("a\n"), errorReader{broken}), func(string) {}); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
}

type errorReader struct{ err error }

func (r errorReader) Read([]byte) (int, error) { return 0, r.err }
