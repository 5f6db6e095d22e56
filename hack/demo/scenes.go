package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labnode"
)

// made is the file that each container makes.
const made = "/made-inside"

// showAll is the demo up to the removal.
func (d *demo) showAll(ctx context.Context) error {
	fmt.Fprintln(d.out, "Two pods with hostUsers: false, each with 65,536 host ids of its own.")
	for _, scene := range []func(context.Context) error{
		d.showNode, d.showPool("before"), d.showPods, d.showLayers, d.showFiles, d.showPool("with the pods"), d.showSelftest,
	} {
		if err := scene(ctx); err != nil {
			return err
		}
	}
	d.shown = true
	return nil
}

func (d *demo) showNode(ctx context.Context) error {
	if err := d.bringUp(ctx); err != nil {
		return err
	}
	version, err := d.runtime.Version(ctx, &runtimeapi.VersionRequest{})
	if err != nil {
		return err
	}
	d.heading("A node, made for this demo")
	d.row("containerd, its CRI plugin off", d.node.Containerd.Address)
	d.row("userns-shim "+version.GetRuntimeVersion(), d.node.Daemon.Socket)
	d.row("registry on loopback", fmt.Sprintf("%s, %d layers built on the spot", d.image(), d.layers))
	return nil
}

func (d *demo) showPool(when string) func(context.Context) error {
	return func(ctx context.Context) error {
		out, err := d.own(ctx, "pool", "status", "--state", d.node.Daemon.State)
		if err != nil {
			return err
		}
		d.heading("The pool of host ids %s: userns-shim pool status", when)
		d.quote(out)
		return nil
	}
}

// showPods runs one pod for which userns-shim chooses the ids, and one that comes with ids, as kubelet sends them.
func (d *demo) showPods(ctx context.Context) error {
	images := runtimeapi.NewImageServiceClient(d.cri)
	if _, err := images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: d.image()}}); err != nil {
		return fmt.Errorf("pull %s: %w", d.image(), err)
	}
	if err := d.runPod(ctx, "alpha", nil); err != nil {
		return err
	}
	kubelets := []*runtimeapi.IDMapping{{HostId: d.node.Kubelet().Start, ContainerId: 0, Length: labnode.IDsPerRange}}
	if err := d.runPod(ctx, "beta", kubelets); err != nil {
		return err
	}
	d.heading("Two pods with hostUsers: false")
	d.row("", "alpha", "beta")
	d.row("ids chosen by", "userns-shim", "the client, as kubelet does")
	d.eachPod("host ids", func(p *pod) string { return fmt.Sprintf("%d-%d", p.ids.Start, last(p.ids)) })
	for _, command := range [][]string{{"cat", "/proc/self/uid_map"}, {"cat", "/proc/self/gid_map"}, {"id"}} {
		if err := d.inside(ctx, strings.Join(command, " "), command...); err != nil {
			return err
		}
	}
	if err := d.onHost("its process, for the host", func(p *pod) string { return fmt.Sprintf("/proc/%d", p.pid) }); err != nil {
		return err
	}
	return d.showDisjoint()
}

func (d *demo) showDisjoint() error {
	low, high := d.pods[0], d.pods[1]
	if low.ids.Start > high.ids.Start {
		low, high = high, low
	}
	if last(low.ids) >= high.ids.Start {
		return fmt.Errorf("pods %s and %s share the ids from %d on", low.name, high.name, high.ids.Start)
	}
	fmt.Fprintln(d.out)
	d.say("disjoint: the last id of %s, %d, is below the first of %s, %d", low.name, last(low.ids), high.name, high.ids.Start)
	return nil
}

func last(e labnode.Extent) uint32 { return e.Start + e.Length - 1 }

// showLayers shows that both pods use one copy of the image, which on disk belongs to root.
func (d *demo) showLayers(ctx context.Context) error {
	d.heading("One copy of the image for both, its owners on disk as they were")
	d.row("owner", "in alpha", "in beta")
	for _, path := range []string{"/", "/data/root", "/data/nonroot"} {
		if err := d.inside(ctx, path, "stat", "-c", "%u:%g", path); err != nil {
			return err
		}
	}
	fmt.Fprintln(d.out)
	d.say("The same layer on disk, %s/", d.snapshots())
	for _, path := range []string{"data/root", "data/nonroot"} {
		if err := d.showOnDisk(path); err != nil {
			return err
		}
	}
	return nil
}

// showOnDisk shows the owner of a layer's file. That there is one such file shows that no pod has a copy.
func (d *demo) showOnDisk(path string) error {
	paths, err := filepath.Glob(filepath.Join(d.snapshots(), "*/fs", path))
	if err != nil {
		return err
	}
	if len(paths) != 1 {
		return fmt.Errorf("%s is %d times on disk, want 1: %q", path, len(paths), paths)
	}
	owner, err := ownerOf(paths[0])
	if err != nil {
		return err
	}
	relative, err := filepath.Rel(d.snapshots(), paths[0])
	if err != nil {
		return err
	}
	d.row(relative, owner, "the only copy")
	return nil
}

// snapshots is where containerd keeps layers, the writable ones of containers included.
func (d *demo) snapshots() string {
	return filepath.Join(d.node.Containerd.Root, "io.containerd.snapshotter.v1.overlayfs", "snapshots")
}

// showFiles has each container make a file.
func (d *demo) showFiles(ctx context.Context) error {
	for _, p := range d.pods {
		if _, err := p.exec(ctx, "touch", made); err != nil {
			return err
		}
	}
	d.heading("A file that each container made: touch %s", made)
	d.row("owner", "alpha's", "beta's")
	if err := d.inside(ctx, "inside", "stat", "-c", "%u:%g", made); err != nil {
		return err
	}
	return d.onHost("on the host", func(p *pod) string { return fmt.Sprintf("/proc/%d/root%s", p.pid, made) })
}

func (d *demo) showSelftest(ctx context.Context) error {
	out, err := d.own(ctx, "selftest", "--endpoint", d.socket(), "--cgroup-parent", d.node.Cgroup())
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	d.heading("All of that as checks, for any node and any CRI runtime: userns-shim selftest")
	d.say("%s", lines[len(lines)-1])
	return nil
}

// showRemoved is the end: the pods have been removed, and nothing of them is left.
func (d *demo) showRemoved(ctx context.Context) error {
	if err := d.showPool("after the pods were removed")(ctx); err != nil {
		return err
	}
	fmt.Fprintln(d.out)
	d.say("Nothing of the pods is left: no mount, namespace, cgroup, process, snapshot, lease,")
	d.say("address, interface or packet filter rule.")
	return nil
}

// eachPod shows a row with a cell for each pod.
func (d *demo) eachPod(label string, cell func(*pod) string) {
	var cells []string
	for _, p := range d.pods {
		cells = append(cells, cell(p))
	}
	d.row(label, cells...)
}

// inside shows what a command prints in each pod.
func (d *demo) inside(ctx context.Context, label string, command ...string) error {
	var cells []string
	for _, p := range d.pods {
		out, err := p.exec(ctx, command...)
		if err != nil {
			return err
		}
		// What id prints is too wide for two columns; its groups are those of uid and gid again.
		out, _, _ = strings.Cut(out, " groups=")
		cells = append(cells, out)
	}
	d.row(label, cells...)
	return nil
}

// onHost shows the owner of a path of each pod.
func (d *demo) onHost(label string, path func(*pod) string) error {
	var cells []string
	for _, p := range d.pods {
		owner, err := ownerOf(path(p))
		if err != nil {
			return err
		}
		cells = append(cells, owner)
	}
	d.row(label, cells...)
	return nil
}

func ownerOf(path string) (string, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	st := info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%d:%d", st.Uid, st.Gid), nil
}
