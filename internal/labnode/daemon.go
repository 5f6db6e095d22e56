package labnode

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// metricsAddr is in the node's own network namespace, so a fixed port is free.
const metricsAddr = "127.0.0.1:9464"

// DaemonOptions are the settings of `userns-shim serve` that differ between tests.
type DaemonOptions struct {
	// Pool and Kubelet are the two segments of the id pool.
	Pool, Kubelet Extent
	// OnConflict and Claims are as in the configuration file; empty means its default.
	OnConflict, Claims string
	// Quarantine is a duration as in the configuration file; empty means its default.
	Quarantine string
	// ForecastWindow likewise.
	ForecastWindow string
	// Reconcile is idPool.reconcileInterval; empty means its default.
	Reconcile string
	// NRI are further fields of nri, in YAML's flow style.
	NRI string
	// CgroupDriver is as in the configuration file; empty means cgroupfs.
	CgroupDriver string
	// Handlers are further entries of runtimeHandlers, in YAML that is indented by two.
	Handlers string
	// Registry are further fields of registry, in YAML's flow style.
	Registry string
	// Extra are further fields of the configuration file, in YAML.
	Extra string
	// Args and Env are added to the command line and the environment.
	Args, Env []string
}

// Daemon is a `userns-shim serve` of the lab's own. Its methods are not safe for concurrent use.
type Daemon struct {
	Root   string
	State  string
	Socket string
	Config string // path of its configuration file
	Log    string
	CDI    string // directory of CDI files
	NRI    string // directory of NRI's socket, and of plugins below it

	node *Node
	opts DaemonOptions
	service
}

func newDaemon(node *Node, opts DaemonOptions) (*Daemon, error) {
	d := &Daemon{
		Root:   filepath.Join(node.Dir, "lib"),
		State:  filepath.Join(node.Dir, "run"),
		Socket: filepath.Join(node.Dir, "cri.sock"),
		Config: filepath.Join(node.Dir, "config.yaml"),
		Log:    filepath.Join(node.Dir, "userns-shim.log"),
		CDI:    filepath.Join(node.Dir, "cdi"),
		NRI:    filepath.Join(node.Dir, "nri"),
		node:   node,
		opts:   opts,
	}
	text, err := d.config()
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(d.Config, []byte(text), 0o644); err != nil {
		return nil, fmt.Errorf("write configuration of userns-shim: %w", err)
	}
	return d, nil
}

func (d *Daemon) config() (string, error) {
	canLower, err := canLowerOOMScore()
	if err != nil {
		return "", err
	}
	var text strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&text, format+"\n", args...) }
	line("apiVersion: userns-shim.io/v1alpha1\nkind: Config")
	line("listen: unix://%s\nroot: %s\nstate: %s\nmetricsListen: %s", d.Socket, d.Root, d.State, metricsAddr)
	line("containerd: {address: %s, namespace: %s, snapshotter: overlayfs}", d.node.Containerd.Address, Namespace)
	line("cni: {binDirs: [%s], confDir: %s}", d.node.tools.CNI(), d.node.network.confDir)
	line("registry: {configPath: %s, %s}", d.node.CertsDir, d.opts.Registry)
	line("nri: {socketPath: %s, pluginPath: %s, pluginConfigPath: %s, %s}", d.NRISocket(), d.NRIPlugins(), filepath.Join(d.NRI, "conf.d"), d.opts.NRI)
	line("cdiSpecDirs: [%s]\n%s", d.CDI, strings.TrimRight(d.opts.Extra, "\n"))
	line("cgroupDriver: %s\nrestrictOOMScoreAdj: %t", cmp.Or(d.opts.CgroupDriver, "cgroupfs"), !canLower)
	line("defaultRuntimeHandler: runc\nruntimeHandlers:\n  runc: {runtime: io.containerd.runc.v2, binaryName: runc}")
	if d.opts.Handlers != "" {
		line("%s", strings.TrimRight(d.opts.Handlers, "\n"))
	}
	line("idPool:\n  kubeletExtents: [{start: %d, length: %d}]", d.opts.Kubelet.Start, d.opts.Kubelet.Length)
	line("  extents: [{start: %d, length: %d}]", d.opts.Pool.Start, d.opts.Pool.Length)
	for key, value := range map[string]string{
		"onConflict": d.opts.OnConflict, "claims": d.opts.Claims, "quarantine": d.opts.Quarantine, "forecastWindow": d.opts.ForecastWindow,
		"reconcileInterval": d.opts.Reconcile,
	} {
		if value != "" {
			line("  %s: %s", key, value)
		}
	}
	return text.String(), nil
}

// Start starts the daemon, again after Stop or Kill9, and waits until CRI answers.
func (d *Daemon) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return d.launch(ctx, d.node.World, command{
		name: "userns-shim",
		path: d.node.binary,
		args: append([]string{"serve", "--config", d.Config}, d.opts.Args...),
		env:  append([]string{d.node.tools.searchPath()}, d.opts.Env...),
		log:  d.Log,
	}, d.answers)
}

func (d *Daemon) answers(ctx context.Context) error {
	conn, err := d.Dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = runtimeapi.NewRuntimeServiceClient(conn).Version(ctx, &runtimeapi.VersionRequest{})
	return err
}

// Dial opens a gRPC connection to the CRI socket. It is there again soon after a restart of the daemon: gRPC's
// own pauses of seconds would be most of a test that kills it.
func (d *Daemon) Dial(more ...grpc.DialOption) (*grpc.ClientConn, error) {
	retry := grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.5, Jitter: 0.2, MaxDelay: 200 * time.Millisecond},
		MinConnectTimeout: 5 * time.Second,
	}
	opts := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithConnectParams(retry),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16 << 20)),
	}
	return grpc.NewClient("unix://"+d.Socket, append(opts, more...)...)
}

// NRISocket is where NRI plugins connect.
func (d *Daemon) NRISocket() string { return filepath.Join(d.NRI, "nri.sock") }

// NRIPlugins is the directory of plugins that the daemon starts; it is not there at first.
func (d *Daemon) NRIPlugins() string { return filepath.Join(d.NRI, "plugins") }
