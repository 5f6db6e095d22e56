package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/userns-shim/userns-shim/internal/labnode"
)

// keeperMode is the argument of the process in the background that owns a node which is kept: the
// daemons of a lab node end with their owner.
const keeperMode = "keeper"

const (
	// readyFD is where the keeper says that everything is shown.
	readyFD = 3
	// stopSocket is in the node's directory. Whoever connects asks for the end, and is told of it.
	stopSocket = "demo.sock"
)

// startKeeper starts the keeper and waits until everything is shown.
func startKeeper(ctx context.Context) error {
	ready, theirs, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	cmd := exec.Command("/proc/self/exe", keeperMode)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{theirs}
	// A session of its own: Ctrl-C later on, or the end of the terminal, is not meant for it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return errors.Join(err, theirs.Close())
	}
	if err := theirs.Close(); err != nil {
		return err
	}
	forwarding := context.AfterFunc(ctx, func() {
		// It cannot have ended unnoticed: it is waited for below.
		_ = cmd.Process.Signal(syscall.SIGTERM)
	})
	defer forwarding()
	if message, err := io.ReadAll(ready); err == nil && len(message) > 0 {
		return nil
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("the demo ended early: %w", err)
	}
	return errors.New("the demo ended early")
}

// keep says how to talk to the node, and waits until somebody asks for the end or the keeper is told
// to end by a signal. It returns where to report the end.
func keep(ctx context.Context, d *demo) (io.WriteCloser, error) {
	listener, err := net.Listen("unix", filepath.Join(d.node.Dir, stopSocket))
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	d.showHowToTalk()
	log, err := os.OpenFile(filepath.Join(d.node.Dir, "demo.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	// The terminal, or a pipe, is not kept open.
	if err := redirectOutput(log); err != nil {
		return nil, err
	}
	ready := os.NewFile(readyFD, "ready")
	if _, err := io.WriteString(ready, "shown"); err != nil {
		return nil, err
	}
	if err := ready.Close(); err != nil {
		return nil, err
	}
	unblock := context.AfterFunc(ctx, func() { listener.Close() })
	defer unblock()
	conn, err := listener.Accept()
	if ctx.Err() != nil {
		return log, nil
	}
	return conn, err
}

func (d *demo) showHowToTalk() {
	d.heading("It goes on running, in %s", d.node.Dir)
	own := filepath.Join("bin", "userns-shim")
	for _, line := range []string{
		"The pool, the pods' ranges, the checks:",
		"  " + own + " pool status --state " + d.node.Daemon.State,
		"  " + own + " pool list --state " + d.node.Daemon.State,
		"  " + own + " selftest --endpoint " + d.socket() + " \\",
		"      --image " + d.image() + " --cgroup-parent " + d.node.Cgroup(),
		"",
		"CRI, where crictl is installed:",
		"  export CONTAINER_RUNTIME_ENDPOINT=" + d.socket(),
		"  crictl pods",
		"  crictl exec --sync " + d.pods[0].container[:13] + " id",
		"",
		"containerd below it, and the pods' processes for the host:",
		"  bin/ctr -a " + d.node.Containerd.Address + " -n " + labnode.Namespace + " tasks ls",
		fmt.Sprintf("  ps -o pid,user,args -p %d,%d", d.pods[0].pid, d.pods[1].pid),
		"",
		"Stop and remove all of it:",
		"  hack/demo.sh stop",
	} {
		d.say("%s", line)
	}
	fmt.Fprintln(d.out)
}

// stopKept asks the keeper of each node that is kept to remove it, and waits until it has. What is left of
// one that was killed is swept up.
func stopKept(ctx context.Context, out io.Writer) error {
	base := os.Getenv(labnode.DirEnv)
	if base == "" {
		base = "/tmp"
	}
	sockets, err := filepath.Glob(filepath.Join(base, "*", stopSocket))
	if err != nil {
		return err
	}
	var errs []error
	for _, socket := range sockets {
		errs = append(errs, stopOne(ctx, socket, out))
	}
	errs = append(errs, labnode.Sweep(ctx))
	for _, socket := range sockets {
		if _, err := os.Stat(filepath.Dir(socket)); !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("%s is still there; see the demo.log in it", filepath.Dir(socket)))
		}
	}
	if len(sockets) == 0 {
		fmt.Fprintln(out, "No demo is running.")
	}
	return errors.Join(errs...)
}

func stopOne(ctx context.Context, socket string, out io.Writer) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if errors.Is(err, syscall.ECONNREFUSED) {
		fmt.Fprintf(out, "The demo in %s was killed: removing what is left of it.\n", filepath.Dir(socket))
		return nil
	}
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = io.Copy(out, conn)
	return err
}
