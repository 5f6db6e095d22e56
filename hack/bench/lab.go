package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/leaks"
)

const (
	// kubeletRanges is how many ranges the benchmark, in kubelet's place, deals out in turn: so many that
	// none comes back soon, as on a node.
	kubeletRanges = labnode.RangesPerNode - ownRanges
	ownRanges     = 4 // of the pool itself, which are not used

	removeTimeout = 60 * time.Second
	pauseImage    = "pause:latest"
)

// lab is one node with both runtimes on it. They share its registry, its CNI configuration, its network
// namespace and its file system; each has a containerd of its own.
type lab struct {
	node  *labnode.Node
	cri   *labnode.Containerd // the one with the CRI plugin
	sides []*side             // userns-shim, then containerd
	image string
	next  int // number of the next pod
}

// side is one of the two runtimes and what was measured of it.
type side struct {
	name    string // of its cgroup
	version string // the runtime's name and version, as it reports them
	conn    *grpc.ClientConn
	runtime runtimeapi.RuntimeServiceClient
	account account
	daemons []int
	figures figures
}

func (l *lab) bringUp(ctx context.Context) error {
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	tools, err := labnode.FindTools(dir)
	if err != nil {
		return err
	}
	if err := tools.Check("userns-shim", "containerd", "runc", "cni/bridge"); err != nil {
		return err
	}
	// What an earlier run left because it was killed.
	if err := labnode.Sweep(ctx); err != nil {
		return err
	}
	l.node, err = labnode.Start(ctx, labnode.Options{Tools: tools, KubeletRanges: kubeletRanges, PoolRanges: ownRanges})
	if err != nil {
		return err
	}
	if err := l.pushImages(ctx); err != nil {
		return err
	}
	l.cri, err = labnode.StartContainerd(ctx, labnode.ContainerdOptions{
		Tools: tools, Dir: filepath.Join(l.node.Dir, "cri"), World: l.node.World, WithCRI: true,
		ExtraConfig: criConfig(tools, l.node),
	})
	if err != nil {
		return err
	}
	return l.connect(ctx)
}

func (l *lab) pushImages(ctx context.Context) error {
	box, err := labimage.FindBox(ctx)
	if err != nil {
		return err
	}
	l.image = l.node.Registry.Ref(labimage.Demo)
	for name, spec := range map[string]labimage.Spec{
		labimage.Demo: labimage.Catalogue(box)[labimage.Demo],
		pauseImage:    pauseSpec(box),
	} {
		img, err := labimage.Build(spec)
		if err != nil {
			return fmt.Errorf("build image %s: %w", name, err)
		}
		if _, err := l.node.Registry.Push(ctx, name, img); err != nil {
			return err
		}
	}
	return nil
}

// pauseSpec is like the image that containerd's CRI plugin uses by default: one layer, one static program
// that sleeps.
func pauseSpec(box labimage.Box) labimage.Spec {
	return labimage.Spec{
		Layers:     []labimage.Layer{{labimage.Program("sleep", box.Program)}},
		Entrypoint: []string{"/sleep", "infinity"},
	}
}

// criConfig makes the CRI plugin use the node's registry and network.
func criConfig(tools labnode.Tools, node *labnode.Node) string {
	return labnode.PluginConfig{
		Sandbox: node.Registry.Ref(pauseImage), CertsDir: node.CertsDir, CNIBinDir: tools.CNI(), CNIConfDir: node.CNIConfDir(),
	}.TOML()
}

func (l *lab) connect(ctx context.Context) error {
	ours, err := l.node.Daemon.Dial()
	if err != nil {
		return err
	}
	theirs, err := l.cri.Dial()
	if err != nil {
		return errors.Join(err, ours.Close())
	}
	l.sides = []*side{
		{name: "userns-shim", conn: ours, daemons: []int{l.node.Daemon.PID(), l.node.Containerd.PID()}},
		{name: "containerd", conn: theirs, daemons: []int{l.cri.PID()}},
	}
	for _, s := range l.sides {
		if err := s.open(ctx, l); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// open puts the side's daemons into the cgroup that accounts for them and pulls the image.
func (s *side) open(ctx context.Context, l *lab) error {
	s.runtime = runtimeapi.NewRuntimeServiceClient(s.conn)
	s.figures = figures{}
	version, err := s.runtime.Version(ctx, &runtimeapi.VersionRequest{})
	if err != nil {
		return fmt.Errorf("ask for the version: %w", err)
	}
	s.version = version.GetRuntimeName() + " " + version.GetRuntimeVersion()
	if s.account, err = openAccount(s.cgroupParent(l), s.daemons); err != nil {
		return err
	}
	images := runtimeapi.NewImageServiceClient(s.conn)
	_, err = images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: l.image}})
	if err != nil {
		return fmt.Errorf("pull %s: %w", l.image, err)
	}
	return nil
}

func (s *side) cgroupParent(l *lab) string { return l.node.Cgroup() + "/" + s.name }

// explain shows the daemons' logs after something went wrong.
func (l *lab) explain() {
	if l.node == nil || l.node.Daemon == nil {
		return
	}
	logs := []string{l.node.Daemon.Log, l.node.Containerd.Log}
	if l.cri != nil {
		logs = append(logs, l.cri.Log)
	}
	for _, log := range logs {
		fmt.Fprintf(os.Stderr, "\nend of %s:\n%s\n", log, labnode.LogTail(log))
	}
}

// remove ends the node with everything on it, and looks whether something of it is left on the machine.
func (l *lab) remove(ctx context.Context) error {
	if l.node == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
	defer cancel()
	var errs []error
	for _, s := range l.sides {
		errs = append(errs, s.conn.Close())
	}
	if l.cri != nil {
		errs = append(errs, l.cri.Close(ctx))
	}
	errs = append(errs, l.node.Close(ctx))
	scope := leaks.Scope{
		Namespaces: (*labnode.World)(nil),
		MountRoots: []string{l.node.Dir},
		Cgroup:     l.node.Cgroup(),
		Mark:       l.node.Name,
		HasID:      l.node.IDs.Contains,
	}
	left, err := scope.Check(ctx, leaks.Inventory{}, removeTimeout/4)
	errs = append(errs, err)
	for _, thing := range left {
		errs = append(errs, fmt.Errorf("left behind: %s", thing))
	}
	if _, err := os.Stat(l.node.Dir); !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, fmt.Errorf("left behind: directory %s", l.node.Dir))
	}
	return errors.Join(errs...)
}
