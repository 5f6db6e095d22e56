package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/user"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/admin"
	"github.com/userns-shim/userns-shim/internal/config"
	"github.com/userns-shim/userns-shim/internal/doctor"
	"github.com/userns-shim/userns-shim/internal/kernel"
	"github.com/userns-shim/userns-shim/internal/version"
	"github.com/userns-shim/userns-shim/pkg/cgroups"
	"github.com/userns-shim/userns-shim/pkg/engine"
	"github.com/userns-shim/userns-shim/pkg/network"
	"github.com/userns-shim/userns-shim/pkg/state"
)

// doctorAsk bounds one question to the daemon or to containerd.
const doctorAsk = 5 * time.Second

// examineNode asks this machine, with the parts of the daemon that know how.
func examineNode(ctx context.Context, cfg config.Config) ([]doctor.Finding, error) {
	n, closers, err := doctorNode(cfg)
	defer closers()
	if err != nil {
		return nil, err
	}
	report := doctor.Examine(ctx, doctor.Options{
		FS:      "/",
		Version: version.Version,
		Node:    doctorSettings(cfg, n),
		Ports: doctor.Ports{
			Kernel:         n.prober,
			Engine:         doctorEngine{n.engine},
			UserNamespaces: n.checkUserNamespaces,
			Network:        n.network.Status,
			KubeletUser:    kubeletUser,
			Getsubids:      getsubids,
			Daemon:         func(ctx context.Context) (doctor.Daemon, error) { return findDaemon(ctx, cfg) },
			State:          func(path string) error { return checkDatabase(cfg, path) },
			FreeSpace:      freeSpace,
		},
	})
	return append(report.Findings, doctorPool(ctx, cfg)...), nil
}

// doctored is a node with the parts that a check needs itself.
type doctored struct {
	*node
	prober *kernel.Prober
	engine *engine.Engine
}

// doctorNode makes what can be made without touching what the daemon has. The function closes it.
func doctorNode(cfg config.Config) (doctored, func(), error) {
	var d doctored
	closers := func() {}
	host, err := cgroups.New()
	if err != nil {
		return d, closers, err
	}
	if d.engine, err = engine.New(engine.Options{
		Cgroups: host, Address: cfg.Containerd.Address, Namespace: cfg.Containerd.Namespace, DefaultSnapshotter: cfg.Containerd.Snapshotter,
	}); err != nil {
		return d, closers, err
	}
	closers = func() { _ = d.engine.Close() } // it has only been asked
	if d.prober, err = kernel.New(kernel.Options{UserNS: probeUserNS}); err != nil {
		return d, closers, err
	}
	d.node = &node{cfg: cfg, kernel: d.prober, engine: d.engine, cgroup2: cgroup2Mounts}
	d.network, err = network.New(network.Options{BinDirs: cfg.CNI.BinDirs, ConfDir: cfg.CNI.ConfDir})
	return d, closers, err
}

func doctorSettings(cfg config.Config, n doctored) doctor.Node {
	out := doctor.Node{
		Listen: cfg.Listen, Root: cfg.Root, Containerd: cfg.Containerd.Address, ConfDir: cfg.CNI.ConfDir, SystemdCgroup: n.SystemdCgroup(),
	}
	if cfg.NRI.Enabled {
		out.NRI = cfg.NRI.SocketPath
	}
	snapshotters := (&daemon{cfg: cfg}).snapshotters()
	for _, name := range slices.Sorted(maps.Keys(cfg.RuntimeHandlers)) {
		h := cfg.RuntimeHandlers[name]
		out.Handlers = append(out.Handlers, doctor.Handler{
			Name: name, BinaryName: h.BinaryName, Snapshotter: snapshotters[name], Never: h.UserNamespaces == config.UserNamespacesNever,
		})
	}
	return out
}

// doctorEngine is containerd, as package doctor asks it.
type doctorEngine struct{ *engine.Engine }

func (e doctorEngine) Plugins(ctx context.Context) ([]doctor.Plugin, error) {
	list, err := e.Engine.Plugins(ctx)
	out := make([]doctor.Plugin, 0, len(list))
	for _, p := range list {
		out = append(out, doctor.Plugin(p))
	}
	return out, err
}

func kubeletUser() (bool, error) {
	_, err := hostSources().lookup("kubelet")
	var unknown user.UnknownUserError
	if errors.As(err, &unknown) {
		return false, nil
	}
	return err == nil, err
}

func getsubids(ctx context.Context, args ...string) (string, error) {
	out, err := hostSources().getsubids(ctx, args...)
	if noProgram(err) {
		return "", doctor.ErrNoProgram
	}
	return out, err
}

// checkDatabase takes one that a daemon has open for well: the daemon read it when it opened it.
func checkDatabase(cfg config.Config, path string) error {
	if err := checkLost(cfg); err != nil {
		return err
	}
	if err := state.Check(path); !errors.Is(err, state.ErrLocked) {
		return err
	}
	return nil
}

func freeSpace(path string) (float64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	free := 1.0
	if fs.Blocks > 0 {
		free = float64(fs.Bavail) / float64(fs.Blocks)
	}
	if fs.Files > 0 {
		free = min(free, float64(fs.Ffree)/float64(fs.Files))
	}
	return free, nil
}

// findDaemon asks the daemon's admin socket who serves it, and its CRI socket for the version.
func findDaemon(ctx context.Context, cfg config.Config) (doctor.Daemon, error) {
	ctx, cancel := context.WithTimeout(ctx, doctorAsk)
	defer cancel()
	socket := admin.SocketPath(cfg.State)
	if _, err := admin.NewClient(socket).PoolStatus(ctx); err != nil {
		return doctor.Daemon{}, err
	}
	var d doctor.Daemon
	pid, err := servedBy(ctx, socket)
	if err != nil {
		return doctor.Daemon{}, err
	}
	d.PID = pid
	conn, err := grpc.NewClient(cfg.Listen, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return d, fmt.Errorf("dial %s: %w", cfg.Listen, err)
	}
	defer conn.Close()
	told, err := runtimeapi.NewRuntimeServiceClient(conn).Version(ctx, &runtimeapi.VersionRequest{})
	if err != nil {
		return d, fmt.Errorf("ask for the version at %s: %w", cfg.Listen, err)
	}
	d.Version = told.GetRuntimeVersion()
	return d, nil
}

// servedBy returns the process that listens on a unix socket.
func servedBy(ctx context.Context, socket string) (int, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil || credErr != nil {
		return 0, fmt.Errorf("find who serves %s: %w", socket, errors.Join(err, credErr))
	}
	return int(cred.Pid), nil
}
