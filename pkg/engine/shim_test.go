package engine

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestFindListener(t *testing.T) {
	const table = `Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000003 00000000 00000000 0001 03  1001 /run/s/abc
0000000000000000: 00000002 00000000 00010000 0001 01  1002 /run/s/abcd
0000000000000000: 00000002 00000000 00010000 0001 01  1003 /run/with space/s/abc
0000000000000000: 00000003 00000000 00000000 0001 03  1004
0000000000000000: 00000002 00000000 00010000 0001 01  1005 @/abcde
`
	for name, want := range map[string]listener{
		"abc":  {"/run/with space/s/abc", "1003"},
		"abcd": {"/run/s/abcd", "1002"},
		"bcd":  {},
		"abcx": {},
	} {
		got, err := findListener(strings.NewReader(table), name)
		if err != nil || got != want {
			t.Errorf("find %s: %+v, %v, want %+v", name, got, err, want)
		}
	}
}

// TestAwaitNoListener: the kernel tells of a listener by accepting connections, whether its file is there or not.
func TestAwaitNoListener(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if err := awaitNoListener(t.Context(), path); err != nil {
		t.Errorf("no file: %v", err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	short, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if err := awaitNoListener(short, path); err == nil {
		t.Error("a listener was not seen")
	}
	time.AfterFunc(50*time.Millisecond, func() { _ = listener.Close() })
	if err := awaitNoListener(t.Context(), path); err != nil {
		t.Errorf("after the end of the listener: %v", err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the file of the socket: %v, want it left to removeSockets", err)
	}
}
