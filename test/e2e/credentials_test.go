package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// TestCredentialsOverAUnixSocketArriveTranslated sends SCM_CREDENTIALS both ways through a socket on a volume.
func TestCredentialsOverAUnixSocketArriveTranslated(t *testing.T) {
	n := sharedNode(t)
	image := probeImage(t, n)
	host := probeOnHost(t)
	pod := n.RunPod(t)
	start := pod.Range(t)

	for _, id := range []uint32{0, 1000} {
		t.Run(fmt.Sprintf("from %d in the pod to the host", id), func(t *testing.T) {
			dir := volume(t, n)
			path := filepath.Join(dir, "host.sock")
			receiver := startReceiver(t, host, path)
			c := pod.Run(t, image, nodetest.Mount(dir, "/vol"), nodetest.User(int64(id), int64(id)))
			if r := probe(t, c, "sendcred", "/vol/host.sock", fmt.Sprint(id), fmt.Sprint(id)); r.Errno != "" {
				t.Fatalf("send: %+v", r)
			}
			if r := receiver(); r.UID != int(start+id) || r.GID != int(start+id) {
				t.Errorf("the host receives %d:%d, want %d", r.UID, r.GID, start+id)
			}
		})
	}
	for name, c := range map[string]struct{ sender, want uint32 }{
		"from the pod's id on the host": {sender: start + 1000, want: 1000},
		"from the host's root":          {sender: 0, want: overflow},
	} {
		t.Run(name+" to the pod", func(t *testing.T) {
			dir := volume(t, n)
			receiver := pod.Run(t, image, nodetest.Mount(dir, "/vol"), nodetest.Command(probePath, "recvcred", "/vol/pod.sock"))
			awaitFile(t, filepath.Join(dir, "pod.sock.ready"))
			id := strconv.Itoa(int(c.sender))
			sendFromHost(t, c.sender, host, "sendcred", filepath.Join(dir, "pod.sock"), id, id)
			if code := receiver.Wait(t); code != 0 {
				t.Fatalf("receiver exits with %d: %s", code, receiver.Log(t))
			}
			r := parseResult(t, receiver.Log(t).Stdout())
			if r.UID != int(c.want) || r.GID != int(c.want) {
				t.Errorf("the pod receives %d:%d, want %d", r.UID, r.GID, c.want)
			}
		})
	}
}

func TestCredentialsOfAnotherUserAreRefused(t *testing.T) {
	n := sharedNode(t)
	dir := volume(t, n)
	receiver := startReceiver(t, probeOnHost(t), filepath.Join(dir, "host.sock"))
	c := n.RunPod(t).Run(t, probeImage(t, n), nodetest.Mount(dir, "/vol"), nodetest.User(1000, 1000))
	if r := probe(t, c, "sendcred", "/vol/host.sock", "0", "0"); r.Errno != "EPERM" {
		t.Errorf("user 1000 claims to be root: %+v, want EPERM", r)
	}
	receiver()
}

// startReceiver runs the probe's receiver on the host; the result is a function that waits for what it got.
func startReceiver(t *testing.T, program, path string) func() result {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, "recvcred", path)
	type output struct {
		text []byte
		err  error
	}
	done := make(chan output, 1)
	go func() {
		text, err := cmd.Output()
		done <- output{text, err}
	}()
	awaitFile(t, path+".ready")
	return func() result {
		t.Helper()
		select {
		case out := <-done:
			if out.err != nil {
				t.Fatal(out.err)
			}
			return parseResult(t, string(out.text))
		case <-time.After(30 * time.Second):
			t.Fatal("no message came")
			return result{}
		}
	}
}

func sendFromHost(t *testing.T, uid uint32, argv ...string) {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if r := parseResult(t, string(out)); r.Errno != "" {
		t.Fatalf("send from the host as %d: %+v", uid, r)
	}
}
