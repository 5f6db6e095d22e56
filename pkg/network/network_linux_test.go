package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// bridgeConf is an ordinary node's configuration.
const bridgeConf = `{
  "cniVersion": "1.0.0", "name": "pods", "plugins": [
    {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
     "ipam": {"type": "host-local", "dataDir": "DIR", "ranges": [[{"subnet": "10.88.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
    {"type": "portmap", "capabilities": {"portMappings": true}},
    {"type": "firewall"}
  ]}`

func TestSetupAndTeardown(t *testing.T) {
	n := newNode(t, Options{})
	n.configure(t, "10-pods.conflist", bridgeConf)
	warmUp(t, n)
	before := n.state(t)
	pod := newPod(t)
	result, err := n.Setup(t.Context(), pod)
	if err != nil {
		t.Fatal(err)
	}
	if len(result.IPs) != 1 || !netip.MustParsePrefix("10.88.0.0/24").Contains(result.IPs[0]) {
		t.Errorf("IPs = %v", result.IPs)
	}
	addresses := inPod(t, pod, "ip", "-o", "address")
	for _, want := range []string{result.IPs[0].String() + "/24", "127.0.0.1/8", "::1/128"} {
		if !strings.Contains(addresses, want) {
			t.Errorf("%s is not among the pod's addresses:\n%s", want, addresses)
		}
	}
	eth0 := result.Interfaces[indexOf(t, result, "eth0")]
	if eth0.Sandbox != pod.NetNSPath || !strings.Contains(inPod(t, pod, "ip", "link", "show", "eth0"), eth0.MAC) || eth0.MAC == "" {
		t.Errorf("eth0 = %+v", eth0)
	}
	server := serve(t, "10.88.0.1:8053")
	inNetNS(t, pod, func() error { return dial(server.Addr().String()) })
	if got := n.reserved(t); len(got) != 1 {
		t.Errorf("reserved: %q", got)
	}
	for range 2 {
		if err := n.Teardown(t.Context(), pod); err != nil {
			t.Errorf("Teardown: %v", err)
		}
		if after := n.state(t); after != before {
			t.Errorf("after Teardown:\n%s\nbefore Setup:\n%s", after, before)
		}
	}
}

// warmUp lets plugins make what they keep for the node: the bridge, chains of rules.
func warmUp(t testing.TB, n *node) {
	t.Helper()
	pod := newPod(t)
	pod.PortMappings = []PortMapping{{Protocol: "tcp", ContainerPort: 1, HostPort: 1}}
	if _, err := n.Setup(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	if err := n.Teardown(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
}

func indexOf(t *testing.T, r Result, name string) int {
	t.Helper()
	for i, iface := range r.Interfaces {
		if iface.Name == name {
			return i
		}
	}
	t.Fatalf("no %s in %+v", name, r.Interfaces)
	return -1
}

func TestHostPorts(t *testing.T) {
	n := newNode(t, Options{})
	n.configure(t, "10-pods.conflist", bridgeConf)
	pod := newPod(t)
	pod.PortMappings = []PortMapping{
		{Protocol: "TCP", ContainerPort: 8080, HostPort: 18080},
		{Protocol: "tcp", ContainerPort: 8080, HostPort: 18081, HostIP: "10.88.0.1"},
		{Protocol: "tcp", ContainerPort: 8081},
	}
	if _, err := n.Setup(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	inNetNS(t, pod, func() error {
		serve(t, ":8080")
		return nil
	})
	for _, address := range []string{"10.88.0.1:18080", "10.88.0.1:18081"} {
		if err := dial(address); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
	if err := n.Teardown(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	if err := dial("10.88.0.1:18080"); err == nil {
		t.Error("the host port still answers after Teardown")
	}
}

func dial(address string) error {
	c, err := net.DialTimeout("tcp", address, 20*time.Second)
	if err == nil {
		err = c.Close()
	}
	return err
}

// serve accepts connections until the test ends.
func serve(t *testing.T, address string) net.Listener {
	server, err := net.Listen("tcp", address)
	if err != nil {
		t.Error(err)
		return nil
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	})
	t.Cleanup(func() {
		server.Close()
		wg.Wait()
	})
	return server
}

// TestTeardownWithoutNetNS: the namespace is gone after a reboot, and its file may be left.
func TestTeardownWithoutNetNS(t *testing.T) {
	n := newNode(t, Options{})
	n.configure(t, "10-pods.conflist", bridgeConf)
	for _, keepFile := range []bool{true, false} {
		pod := newPod(t)
		if _, err := n.Setup(t.Context(), pod); err != nil {
			t.Fatal(err)
		}
		dropNetNS(t, pod.NetNSPath)
		if !keepFile {
			if err := os.Remove(pod.NetNSPath); err != nil {
				t.Fatal(err)
			}
		}
		if err := n.Teardown(t.Context(), pod); err != nil {
			t.Errorf("Teardown, file kept %t: %v", keepFile, err)
		}
		if got := n.reserved(t); len(got) != 0 {
			t.Errorf("file kept %t: still reserved: %q", keepFile, got)
		}
	}
}

// TestTeardownWithOtherConfiguration disconnects pods by the configuration that connected them.
func TestTeardownWithOtherConfiguration(t *testing.T) {
	for name, change := range map[string]func(*testing.T, *node){
		"removed": func(t *testing.T, n *node) {
			if err := os.RemoveAll(n.confDir); err != nil {
				t.Fatal(err)
			}
		},
		"broken": func(t *testing.T, n *node) { n.configure(t, "10-pods.conflist", "{") },
		"another": func(t *testing.T, n *node) {
			n.configure(t, "10-pods.conflist", `{"cniVersion": "1.0.0", "name": "other", "plugins": [{"type": "recorder", "dir": "DIR"}]}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, Options{})
			n.configure(t, "10-pods.conflist", bridgeConf)
			pod := newPod(t)
			if _, err := n.Setup(t.Context(), pod); err != nil {
				t.Fatal(err)
			}
			change(t, n)
			if err := n.Teardown(t.Context(), Pod{ID: pod.ID, NetNSPath: pod.NetNSPath}); err != nil {
				t.Errorf("Teardown: %v", err)
			}
			if got := n.reserved(t); len(got) != 0 {
				t.Errorf("still reserved: %q", got)
			}
		})
	}
}

// TestSetupFailureIsUndone: the last plugin of the chain fails, the first has given an address.
func TestSetupFailureIsUndone(t *testing.T) {
	n := newNode(t, Options{})
	n.configure(t, "10-pods.conflist", bridgeConf)
	warmUp(t, n)
	before := n.state(t)
	for _, name := range []string{"failer", "sleeper"} {
		n.configure(t, "10-pods.conflist", strings.Replace(bridgeConf, `{"type": "firewall"}`, fmt.Sprintf(`{"type": %q, "dir": "DIR"}`, name), 1))
		ctx, cancel := context.WithCancel(t.Context())
		var caller sync.WaitGroup
		caller.Go(func() { // goes when the plugin that hangs is at it
			for name == "sleeper" && n.record(name, "ADD") == "" && ctx.Err() == nil {
				time.Sleep(10 * time.Millisecond)
			}
			if name == "sleeper" {
				cancel()
			}
		})
		_, err := n.Setup(ctx, newPod(t))
		cancel()
		caller.Wait()
		if err == nil {
			t.Errorf("%s: Setup succeeded", name)
		}
		if !errors.Is(err, ErrPlugin) {
			t.Errorf("%s: %v, want ErrPlugin", name, err)
		}
		if name == "failer" && !strings.Contains(err.Error(), "the failer fails") {
			t.Errorf("Setup: %v", err)
		}
		if n.record(name, "ADD") == "" || n.record(name, "DEL") == "" {
			t.Errorf("%s was not called for ADD and DEL", name)
		}
		if after := n.state(t); after != before {
			t.Errorf("%s: after the failure:\n%s\nbefore:\n%s", name, after, before)
		}
	}
}

// TestTeardownOutlivesItsCaller: a plugin is not killed half-way through a DEL because the client that asked for it has gone.
func TestTeardownOutlivesItsCaller(t *testing.T) {
	n := newNode(t, Options{})
	n.configure(t, "10-slow.conflist", `{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "slow", "dir": "DIR"}]}`)
	pod := newPod(t)
	if _, err := n.Setup(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := n.Teardown(ctx, pod); err != nil {
		t.Errorf("Teardown: %v", err)
	}
	if _, err := os.Stat(filepath.Join(n.dir, "slow.done")); err != nil {
		t.Errorf("the plugin did not finish: %v", err)
	}
}

// TestOutlive: the grace begins when the caller goes, and ends.
func TestOutlive(t *testing.T) { synctest.Test(t, outlives) }

func outlives(t *testing.T) {
	caller, gone := context.WithCancel(t.Context())
	ctx, cancel := outlive(caller, 50*time.Millisecond)
	defer cancel()
	gone()
	synctest.Wait()
	if ctx.Err() != nil {
		t.Error("the context ended with its caller")
	}
	select {
	case <-ctx.Done():
	case <-time.After(10 * time.Second):
		t.Error("the context does not end")
	}
}

func TestSetupRefuses(t *testing.T) {
	n := newNode(t, Options{})
	good := newPod(t)
	if _, err := n.Setup(t.Context(), good); !errors.Is(err, ErrNotReady) {
		t.Errorf("without configuration: %v, want %v", err, ErrNotReady)
	}
	n.configure(t, "10-pods.conflist", bridgeConf)
	for name, change := range map[string]func(*Pod){
		"no id":            func(p *Pod) { p.ID = "" },
		"argument in name": func(p *Pod) { p.Name = "a;K8S_POD_UID=b" },
		"bandwidth":        func(p *Pod) { p.Annotations = map[string]string{ingressAnnotation: "fast"} },
		"a plain file":     func(p *Pod) { p.NetNSPath = "/proc/version" },
		"no namespace":     func(p *Pod) { p.NetNSPath = "" },
	} {
		pod := good
		change(&pod)
		if _, err := n.Setup(t.Context(), pod); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: Setup = %v, want %v", name, err, ErrInvalid)
		}
	}
	if got := n.reserved(t); len(got) != 0 {
		t.Errorf("reserved: %q", got)
	}
}

// TestTeardownUnknown holds that a pod that was never connected is disconnected.
func TestTeardownUnknown(t *testing.T) {
	n := newNode(t, Options{})
	pod := newPod(t)
	if err := n.Teardown(t.Context(), pod); err != nil {
		t.Errorf("without configuration: %v", err)
	}
	n.configure(t, "10-pods.conflist", bridgeConf)
	if err := n.Teardown(t.Context(), pod); err != nil {
		t.Errorf("with configuration: %v", err)
	}
	n.configure(t, "10-pods.conflist", `{"cniVersion": "1.0.0", "name": "x", "plugins": [{"type": "forgetter", "dir": "DIR"}]}`)
	if err := n.Teardown(t.Context(), pod); err != nil || n.record("forgetter", "DEL") == "" {
		t.Errorf("plugin that knows no such container: %v", err)
	}
}

func TestParallel(t *testing.T) {
	n := newNode(t, Options{})
	n.configure(t, "10-pods.conflist", bridgeConf)
	warmUp(t, n)
	before := n.state(t)
	var mu sync.Mutex
	ips := map[netip.Addr]string{}
	var wg sync.WaitGroup
	for range 8 {
		pod := newPod(t)
		wg.Go(func() {
			result, err := n.Setup(t.Context(), pod)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			if other, ok := ips[result.IPs[0]]; ok {
				t.Errorf("%s and %s both have %s", other, pod.ID, result.IPs[0])
			}
			ips[result.IPs[0]] = pod.ID
			mu.Unlock()
			if err := n.Teardown(t.Context(), pod); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if after := n.state(t); after != before {
		t.Errorf("after:\n%s\nbefore:\n%s", after, before)
	}
}

// TestRealBandwidth needs the kernel's tbf queueing discipline and ifb device.
func TestRealBandwidth(t *testing.T) {
	n := newNode(t, Options{})
	switch out, err := exec.Command("ip", "link", "add", "probe0", "type", "ifb").CombinedOutput(); {
	case err != nil && (strings.Contains(string(out), "Unknown device type") || strings.Contains(string(out), "not supported")):
		t.Skipf("this kernel has no ifb device: %s", out)
	case err != nil:
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := exec.Command("ip", "link", "del", "probe0").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	n.configure(t, "10-pods.conflist", strings.Replace(bridgeConf, `{"type": "firewall"}`, `{"type": "bandwidth", "capabilities": {"bandwidth": true}}`, 1))
	pod := newPod(t)
	pod.Annotations = map[string]string{ingressAnnotation: "10M"}
	if _, err := n.Setup(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("tc", "qdisc", "show").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "rate 10Mbit") {
		t.Errorf("queueing disciplines: %v: %s", err, out)
	}
	if err := n.Teardown(t.Context(), pod); err != nil {
		t.Error(err)
	}
}

// BenchmarkConfiguration measures what every Setup and Status pays to notice a change.
