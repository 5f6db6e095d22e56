package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/leaks"
)

// removeTimeout bounds the removal, which has a context of its own.
const removeTimeout = 60 * time.Second

// demo is the node and the pods on it.
type demo struct {
	screen
	closeOut io.Closer

	tools   labnode.Tools
	node    *labnode.Node
	box     labimage.Box
	layers  int
	cri     *grpc.ClientConn
	engine  *grpc.ClientConn
	runtime runtimeapi.RuntimeServiceClient
	empty   leaks.Inventory // the node without pods
	pods    []*pod
	shown   bool // nothing went wrong
}

// bringUp starts the node and puts an image into its registry.
func (d *demo) bringUp(ctx context.Context) error {
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	if d.tools, err = labnode.FindTools(dir); err != nil {
		return err
	}
	if err := d.tools.Check("userns-shim", "containerd", "runc", "cni/bridge"); err != nil {
		return err
	}
	// What an earlier demo left because it was killed.
	if err := labnode.Sweep(ctx); err != nil {
		return err
	}
	if d.node, err = labnode.Start(ctx, labnode.Options{Tools: d.tools}); err != nil {
		return err
	}
	if err := d.pushImage(ctx); err != nil {
		return err
	}
	return d.connect(ctx)
}

func (d *demo) pushImage(ctx context.Context) error {
	var err error
	if d.box, err = labimage.FindBox(ctx); err != nil {
		return err
	}
	spec := labimage.Catalogue(d.box)[labimage.Demo]
	d.layers = len(spec.Layers)
	img, err := labimage.Build(spec)
	if err != nil {
		return err
	}
	_, err = d.node.Registry.Push(ctx, labimage.Demo, img)
	return err
}

func (d *demo) connect(ctx context.Context) error {
	var err error
	if d.cri, err = d.node.Daemon.Dial(); err != nil {
		return err
	}
	if d.engine, err = d.node.Containerd.Dial(); err != nil {
		return err
	}
	d.runtime = runtimeapi.NewRuntimeServiceClient(d.cri)
	d.empty, err = d.scope().Take(ctx)
	return err
}

func (d *demo) image() string { return d.node.Registry.Ref(labimage.Demo) }

func (d *demo) socket() string { return "unix://" + d.node.Daemon.Socket }

// own runs userns-shim in the node and returns what it prints. Ctrl-C reaches it as one SIGTERM, upon
// which it removes what it has made.
func (d *demo) own(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, d.tools.Path("userns-shim"), args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = removeTimeout
	out, err := d.node.World.Output(cmd)
	return string(out), err
}

// explain shows the daemons' logs after something went wrong, but not after Ctrl-C.
func (d *demo) explain(ctx context.Context) {
	if ctx.Err() != nil || d.node == nil || d.node.Daemon == nil {
		return
	}
	for _, log := range []string{d.node.Containerd.Log, d.node.Daemon.Log} {
		fmt.Fprintf(os.Stderr, "\nend of %s:\n%s\n", log, labnode.LogTail(log))
	}
}

// remove removes the pods and then the node, and looks whether anything is left.
func (d *demo) remove(ctx context.Context) error {
	if d.node == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
	defer cancel()
	if !d.shown {
		fmt.Fprintln(d.out, "\nRemoving everything.")
	}
	return errors.Join(d.removePods(ctx), d.removeNode(ctx))
}

// removePods removes all pods that the runtime lists, and shows what that leaves of them. After something
// went wrong a pod may just be coming up; it ends with the node.
func (d *demo) removePods(ctx context.Context) error {
	if d.runtime == nil {
		return nil
	}
	list, err := d.runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return fmt.Errorf("list pods: %w", err)
	}
	var group errgroup.Group
	for _, sandbox := range list.GetItems() {
		group.Go(func() error { return d.removePod(ctx, sandbox.GetId()) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if d.shown {
		if err := d.checkRemoved(ctx); err != nil {
			return err
		}
	}
	return errors.Join(d.cri.Close(), d.engine.Close())
}

func (d *demo) checkRemoved(ctx context.Context) error {
	left, err := d.scope().Check(ctx, d.empty, removeTimeout/4)
	if err = errors.Join(err, leftBehind(left)); err != nil {
		return err
	}
	return d.showRemoved(ctx)
}

// removeNode ends everything that the demo started, and looks for it on the machine.
func (d *demo) removeNode(ctx context.Context) error {
	if err := d.node.Close(ctx); err != nil {
		return err
	}
	left, err := machineScope(d.node).Check(ctx, leaks.Inventory{}, removeTimeout/4)
	if _, statErr := os.Stat(d.node.Dir); !errors.Is(statErr, os.ErrNotExist) {
		left = append(left, leaks.Thing{Kind: "directory", Name: d.node.Dir})
	}
	if err = errors.Join(err, leftBehind(left)); err == nil {
		fmt.Fprintln(d.out, "\nThe node is gone too: no process, mount, cgroup or file of it is left.")
	}
	if d.closeOut != nil {
		err = errors.Join(err, d.closeOut.Close())
	}
	return err
}

// scope is where the node's pods leave things.
func (d *demo) scope() leaks.Scope {
	scope := d.node.LeakScope()
	scope.Containerd = d.engine
	scope.Ranges = d.rangesInUse
	return scope
}

// machineScope is where the node itself leaves things once it is closed, as seen from outside.
func machineScope(node *labnode.Node) leaks.Scope {
	return leaks.Scope{
		Namespaces: (*labnode.World)(nil),
		MountRoots: []string{node.Dir},
		Cgroup:     filepath.Dir(node.Cgroup() + "/pods"),
		Mark:       node.Name,
		HasID:      node.IDs.Contains,
	}
}

func leftBehind(things []leaks.Thing) error {
	if len(things) == 0 {
		return nil
	}
	var names []string
	for _, t := range things {
		names = append(names, t.String())
	}
	return fmt.Errorf("left behind: %s", strings.Join(names, ", "))
}
