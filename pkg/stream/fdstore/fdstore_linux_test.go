package fdstore

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// listen is the service manager's end.
func listen(t *testing.T) *net.UnixConn {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", socket)
	return conn
}

func receive(t *testing.T, conn *net.UnixConn) (message string, files []*os.File) {
	t.Helper()
	text, oob := make([]byte, 4096), make([]byte, 4096)
	n, oobn, _, _, err := conn.ReadMsgUnix(text, oob)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range fds {
			file := os.NewFile(uintptr(fd), "kept")
			t.Cleanup(func() { _ = file.Close() })
			files = append(files, file)
		}
	}
	return string(text[:n]), files
}

// A kept FIFO has its content when all others have closed it.
func TestKeptFIFOHoldsItsContent(t *testing.T) {
	conn := listen(t)
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	s := FromEnvironment()
	if os.Getenv("NOTIFY_SOCKET") != "" {
		t.Error("children find the socket")
	}
	if err := s.Keep("abc", path); err != nil {
		t.Fatal(err)
	}
	if message, files := receive(t, conn); message != "FDSTORE=1\nFDPOLL=0\nFDNAME=abc" || len(files) != 1 {
		t.Fatalf("message %q with %d files", message, len(files))
	}
	writer, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(writer, "kept content")
	_ = writer.Close()
	reader, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	got := make([]byte, 12)
	if _, err := io.ReadFull(reader, got); err != nil || string(got) != "kept content" {
		t.Errorf("read %q, %v", got, err)
	}
	if err := s.Release("abc"); err != nil {
		t.Fatal(err)
	}
	if message, files := receive(t, conn); message != "FDSTOREREMOVE=1\nFDNAME=abc" || len(files) != 0 {
		t.Errorf("message %q with %d files", message, len(files))
	}
}

func TestReadyIsAnnounced(t *testing.T) {
	conn := listen(t)
	if err := FromEnvironment().Ready(); err != nil {
		t.Fatal(err)
	}
	if message, _ := receive(t, conn); message != "READY=1" {
		t.Errorf("message %q", message)
	}
}

// What the store has already is not sent again.
func TestKeptNamesAreNotKeptTwice(t *testing.T) {
	conn := listen(t)
	t.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	t.Setenv("LISTEN_FDS", "0")
	t.Setenv("LISTEN_FDNAMES", "abc:abc:def")
	s := FromEnvironment()
	for _, name := range []string{"abc", "def"} {
		if err := s.Keep(name, "/no/such/path"); err != nil {
			t.Errorf("Keep(%s): %v", name, err)
		}
	}
	if err := s.Keep("new", "/no/such/path"); err == nil {
		t.Error("a FIFO that does not exist was kept")
	}
	if err := s.Release("end"); err != nil {
		t.Fatal(err)
	}
	if message, _ := receive(t, conn); message != "FDSTOREREMOVE=1\nFDNAME=end" {
		t.Errorf("message %q came first", message)
	}
}

func TestWithoutServiceManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	s := FromEnvironment()
	if s != nil {
		t.Fatalf("store %v", s)
	}
	if err := s.Keep("abc", "/no/such/path"); err != nil {
		t.Error(err)
	}
	if err := s.Release("abc"); err != nil {
		t.Error(err)
	}
	if err := s.Ready(); err != nil {
		t.Error(err)
	}
}

// Variables that were meant for another process, such as the parent, do not count.
func TestForeignDescriptorsStayOpen(t *testing.T) {
	listen(t)
	file, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	t.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()+1))
	t.Setenv("LISTEN_FDS", "100")
	t.Setenv("LISTEN_FDNAMES", "abc")
	if s := FromEnvironment(); s.kept["abc"] {
		t.Error("names of another process count")
	}
	if _, err := file.Stat(); err != nil {
		t.Errorf("a descriptor of our own was closed: %v", err)
	}
}
