package e2e

import (
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// serve runs a web server in the pod that answers with text on port 8080.
func serve(t *testing.T, n *nodetest.Node, pod *nodetest.Pod, text string) {
	t.Helper()
	pod.Run(t, n.Image(t, labimage.Demo),
		nodetest.Shell("mkdir /www && echo "+text+" > /www/index.html && exec httpd -f -p 8080 -h /www"))
}

// get asks a web server from the node's network, again until it listens.
func get(t *testing.T, n *nodetest.Node, address string) string {
	t.Helper()
	client := n.World.HTTPClient()
	client.Timeout = 5 * time.Second
	var lastErr error
	for range 250 {
		resp, err := client.Get("http://" + address + "/")
		if err == nil {
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != http.StatusOK {
				t.Fatalf("GET %s: %s %v", address, resp.Status, err)
			}
			return strings.TrimSpace(string(body))
		}
		lastErr = err
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatal(lastErr)
	return ""
}

func TestPodIsReachedAtItsAddress(t *testing.T) {
	n := sharedNode(t)
	pod := n.RunPod(t)
	serve(t, n, pod, "here")
	if got := get(t, n, pod.IP(t)+":8080"); got != "here" {
		t.Errorf("the pod answers %q", got)
	}
	other := n.RunPod(t).Run(t, n.Image(t, labimage.Demo))
	if got := other.Exec(t, "wget", "-q", "-O", "-", "http://"+pod.IP(t)+":8080/"); got != "here" {
		t.Errorf("the pod answers another pod %q", got)
	}
}

func TestHostPortForwardsToThePod(t *testing.T) {
	n := sharedNode(t)
	pod := n.RunPod(t, func(req *runtimeapi.RunPodSandboxRequest) {
		req.Config.PortMappings = []*runtimeapi.PortMapping{{ContainerPort: 8080, HostPort: 18080}}
	})
	serve(t, n, pod, "forwarded")
	other := n.RunPod(t).Run(t, n.Image(t, labimage.Demo))
	gateway := other.Exec(t, "sh", "-c", "ip route | sed -n 's/^default via \\([0-9.]*\\) .*/\\1/p'")
	if got := get(t, n, gateway+":18080"); got != "forwarded" {
		t.Errorf("port 18080 of the node at %s answers %q", gateway, got)
	}
}

func TestLoopbackIsUp(t *testing.T) {
	n := sharedNode(t)
	c := n.RunPod(t).Run(t, n.Image(t, labimage.Demo))
	if got := c.Exec(t, "ip", "-o", "addr", "show", "dev", "lo"); !strings.Contains(got, "127.0.0.1/8") {
		t.Errorf("loopback has %q", got)
	}
	if got := c.Exec(t, "ip", "-o", "link", "show", "dev", "lo"); !strings.Contains(got, "UP") {
		t.Errorf("loopback is %q, want up", got)
	}
}

func TestHostnameAndResolvConf(t *testing.T) {
	n := sharedNode(t)
	pod := n.RunPod(t, func(req *runtimeapi.RunPodSandboxRequest) {
		req.Config.Hostname = "my-pod"
		req.Config.DnsConfig = &runtimeapi.DNSConfig{Servers: []string{"10.0.0.10"}, Searches: []string{"svc.local"}, Options: []string{"ndots:5"}}
	})
	c := pod.Run(t, n.Image(t, labimage.Demo))
	if got := c.Exec(t, "hostname"); got != "my-pod" {
		t.Errorf("hostname is %q", got)
	}
	if got := c.Exec(t, "cat", "/etc/hostname"); got != "my-pod" {
		t.Errorf("/etc/hostname holds %q", got)
	}
	// Nothing is mounted there by this client, unlike kubelet, and the image has none: it is a copy of the host's.
	hosts, err := os.ReadFile("/etc/hosts")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.Exec(t, "cat", "/etc/hosts"), strings.TrimSpace(string(hosts)); got != want {
		t.Errorf("/etc/hosts holds %q, want %q", got, want)
	}
	got := c.Exec(t, "cat", "/etc/resolv.conf")
	for _, want := range []string{"nameserver 10.0.0.10", "search svc.local", "options ndots:5"} {
		if !strings.Contains(got, want) {
			t.Errorf("resolv.conf lacks %q:\n%s", want, got)
		}
	}
	for _, file := range []string{"/etc/hostname", "/etc/resolv.conf", "/etc/hosts"} {
		if got := c.Exec(t, "stat", "-c", "%u:%g", file); got != "0:0" {
			t.Errorf("%s belongs to %s inside, want 0:0", file, got)
		}
	}
}
