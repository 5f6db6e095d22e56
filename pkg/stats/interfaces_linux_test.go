package stats

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/userns-shim/userns-shim/internal/testkit"
)

// inNetNS runs the test in a network namespace of its own and tells the path of it. The thread ends with the test.
func inNetNS(t *testing.T, test func(path string)) {
	t.Helper()
	testkit.RequireRoot(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread stays in the namespace
		ns, err := netns.New()
		if err != nil {
			t.Error(err)
			return
		}
		defer ns.Close()
		test(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
	}()
	<-done
}

// addPair makes eth0, with an address, and its other end peer0.
func addPair() error {
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "peer0"}
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("add interfaces: %w", err)
	}
	addr, err := netlink.ParseAddr("192.0.2.1/24")
	if err != nil {
		return err
	}
	eth0, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(eth0, addr); err != nil {
		return err
	}
	for _, name := range []string{"lo", "eth0", "peer0"} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
	}
	if err := awaitCarrier("eth0"); err != nil {
		return err
	}
	// Somebody to send to, who need not answer.
	return netlink.NeighAdd(&netlink.Neigh{
		LinkIndex: eth0.Attrs().Index, State: netlink.NUD_PERMANENT,
		IP: net.ParseIP("192.0.2.2"), HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 2},
	})
}

// awaitCarrier waits for the kernel to notice that the other end is up: until then it drops.
func awaitCarrier(name string) error {
	for range 250 {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if link.Attrs().OperState == netlink.OperUp {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("%s has no carrier", name)
}

func send(packets, size int) error {
	conn, err := net.Dial("udp", "192.0.2.2:9")
	if err != nil {
		return err
	}
	defer conn.Close()
	for range packets {
		if _, err := conn.Write(make([]byte, size)); err != nil {
			return err
		}
	}
	return nil
}

// netDev reads what the kernel tells processes in the namespace at path.
func netDev(path string) ([]Interface, error) {
	data, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(path)), "net/dev"))
	if err != nil {
		return nil, err
	}
	var out []Interface
	for _, line := range strings.Split(string(data), "\n")[2:] {
		name, rest, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok || name == "lo" {
			continue
		}
		i := Interface{Name: name}
		var skip uint64
		_, err := fmt.Sscan(rest, &i.RxBytes, &i.RxPackets, &i.RxErrors, &i.RxDropped, &skip, &skip, &skip, &skip,
			&i.TxBytes, &i.TxPackets, &i.TxErrors, &i.TxDropped)
		if err != nil {
			return nil, err
		}
		out = append(out, i)
	}
	return out, nil
}

func TestInterfacesAreThoseOfNetDev(t *testing.T) {
	inNetNS(t, func(path string) {
		if got, err := Interfaces(path); err != nil || len(got) != 0 {
			t.Errorf("a new namespace has interfaces %v (%v), want none without loopback", got, err)
		}
		if err := errors.Join(addPair(), send(100, 1000)); err != nil {
			t.Error(err)
			return
		}
		got, want := settled(t, path)
		byName := func(list []Interface) map[string]Interface {
			out := map[string]Interface{}
			for _, i := range list {
				out[i.Name] = i
			}
			return out
		}
		if diff := cmp.Diff(byName(want), byName(got)); diff != "" {
			t.Errorf("(-net/dev +got):\n%s", diff)
		}
		if eth0 := byName(got)["eth0"]; eth0.TxPackets < 100 || eth0.TxBytes < 100*1000 {
			t.Errorf("eth0 is %+v after 100 packets of 1000 bytes", eth0)
		}
	})
}

// settled reads both until nothing came between: IPv6 sends by itself on a new interface.
func settled(t *testing.T, path string) (got, want []Interface) {
	for range 100 {
		before, errA := netDev(path)
		got, errB := Interfaces(path)
		after, errC := netDev(path)
		if err := errors.Join(errA, errB, errC); err != nil {
			t.Error(err)
			return nil, nil
		}
		if cmp.Equal(before, after) {
			return got, after
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("the interfaces never came to rest")
	return nil, nil
}

func TestInterfacesOfMissingNamespace(t *testing.T) {
	if _, err := Interfaces(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Interfaces returns %v, want one that wraps fs.ErrNotExist", err)
	}
}

func BenchmarkInterfaces(b *testing.B) {
	testkit.RequireRoot(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Interfaces("/proc/self/ns/net"); err != nil {
			b.Fatal(err)
		}
	}
}
