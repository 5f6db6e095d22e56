package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/userns-shim/userns-shim/internal/config"
	"github.com/userns-shim/userns-shim/internal/fromcontainerd"
	"github.com/userns-shim/userns-shim/internal/installer"
	"github.com/userns-shim/userns-shim/internal/selftest"
	"github.com/userns-shim/userns-shim/internal/version"
	"github.com/userns-shim/userns-shim/packaging"
)

// installFlags are the options of install and uninstall.
type installFlags struct {
	opts     installer.Options
	config   string
	healthz  string
	selftest bool
	detach   bool
}

func installCommand() *cobra.Command {
	var f installFlags
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Put userns-shim on this node and point kubelet at it",
		Long: `Copy the programs, the systemd unit and, where there is none, a configuration to a
node; give the user kubelet host ids; start userns-shim and test it with two pods;
stop kubelet, remove the pods that the old runtime still has, and start kubelet with
userns-shim. When the node does not become ready everything is taken back. On a node
that has userns-shim it only replaces it; pods live on.

Drain the node first: pods do not move from one runtime to another. The
configuration is what config migrate makes of the node's containerd.

A version that was taken back is not tried again without --retry. What was there
before is written down in ` + installer.JournalPath + `;
an installation that was interrupted is undone by the next.`,
		Example: `  # On a drained node:
  userns-shim install

  # In a privileged container that has the node's root at /host; the work is done by a
  # service of the node, for the container does not outlive it:
  userns-shim install --root /host --detach`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.run(cmd.Context(), "install", (*installer.Installer).Install)
		},
	}
	f.register(cmd.Flags())
	cmd.Flags().StringVar(&f.config, "config", "", "configuration `file` for a node that has none (default: like the node's containerd)")
	cmd.Flags().BoolVar(&f.opts.Retry, "retry", false, "try again what was rolled back on this node before")
	cmd.Flags().BoolVar(&f.selftest, "selftest", true, "test pods with user namespaces before kubelet is switched; needs the pod network")
	return withExitCodes(cmd, "0  installed\n1  not installed; standard error says why, and whether everything was taken back\n"+
		"2  the command line or the configuration file is wrong: trying again does not help")
}

func uninstallCommand() *cobra.Command {
	var f installFlags
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Point kubelet back at its old runtime and remove userns-shim",
		Long: `Take back what install did on this node: stop kubelet, remove userns-shim's pods,
start kubelet with the runtime that it had, and remove programs and unit. The
configuration, the database and kubelet's host ids stay. Drain the node first.
It does nothing on a node where install was not run.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.run(cmd.Context(), "uninstall", (*installer.Installer).Uninstall)
		},
	}
	f.register(cmd.Flags())
	return cmd
}

func (f *installFlags) register(flags *pflag.FlagSet) {
	o := &f.opts
	flags.StringVar(&o.Root, "root", "/", "root `directory` of the node")
	flags.StringVar(&o.BinDir, "bin-dir", "/usr/local/bin", "`directory` of the node for the programs")
	flags.StringVar(&o.KubeletConfig, "kubelet-config", "/var/lib/kubelet/config.yaml", "kubelet's configuration `file`")
	flags.StringVar(&f.healthz, "kubelet-healthz", "http://127.0.0.1:10248/healthz", "`URL` of kubelet's own health")
	flags.DurationVar(&o.Timeout, "timeout", 3*time.Minute, "`time` that userns-shim and kubelet each have to become ready")
	flags.DurationVar(&o.Settle, "settle", 20*time.Second, "`time` that kubelet has to stay healthy")
	flags.BoolVar(&f.detach, "detach", false, "let a service of the node do the work, and wait for it")
}

// installerUnit is the service that does the work of --detach.
const installerUnit = "userns-shim-installer.service"

func (f *installFlags) run(ctx context.Context, verb string, do func(*installer.Installer, context.Context) error) (err error) {
	bus, err := installer.Dial(ctx, f.opts.Root)
	if err != nil {
		return err
	}
	defer bus.Close()
	if f.detach {
		return f.runDetached(ctx, verb, bus)
	}
	f.opts.Systemd = bus
	if err := f.complete(); err != nil {
		return err
	}
	i, err := installer.New(f.opts)
	if err != nil {
		return err
	}
	return do(i, ctx)
}

// complete fills in what is the same for every node.
func (f *installFlags) complete() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	o := &f.opts
	o.Source, o.Version = filepath.Dir(self), version.Version
	o.ServiceFile = packaging.ServiceFile(o.BinDir)
	o.Runtimes = criRuntimes{}
	o.GiveIDs = func(ctx context.Context) error { return giveKubeletIDs(ctx, o.Root) }
	o.KubeletHealthy = f.kubeletHealthy
	o.Check = func(ctx context.Context) error { return nil }
	if f.selftest {
		o.Check = f.check
	}
	if o.Config, err = f.configuration(); err != nil {
		return err
	}
	o.Endpoint, err = f.endpoint()
	return err
}

// endpoint is where userns-shim will listen: as the node's own configuration says, which stays, or the new one.
func (f *installFlags) endpoint() (string, error) {
	name := filepath.Join(f.opts.Root, installer.ConfigPath)
	text, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		text, err = f.opts.Config, nil
	}
	if err != nil {
		return "", err
	}
	cfg, err := config.Parse(text)
	if err != nil {
		return "", usageError{fmt.Errorf("configuration file %s: %w", name, err)}
	}
	return cfg.Listen, nil
}

// configuration is the file for a node without one.
func (f *installFlags) configuration() ([]byte, error) {
	if f.config != "" {
		data, err := os.ReadFile(f.config)
		if err == nil {
			_, err = config.Parse(data)
		}
		if err != nil {
			return nil, usageError{fmt.Errorf("configuration file %s: %w", f.config, err)}
		}
		return data, nil
	}
	tree, err := fromcontainerd.Load(filepath.Join(f.opts.Root, "/etc/containerd/config.toml"), f.opts.Root)
	if errors.Is(err, os.ErrNotExist) {
		return config.DefaultFile(), nil
	}
	if err != nil {
		return nil, err
	}
	tr, err := fromcontainerd.Translate(tree)
	if err != nil {
		return nil, err
	}
	data, err := tr.Config.MarshalChanged(func(string) string { return "" })
	return append([]byte("# Made of containerd's configuration by userns-shim install.\n"), data...), errors.Join(err, tr.Config.Validate())
}

// runDetached starts this command once more, on the node itself, from a copy there.
func (f *installFlags) runDetached(ctx context.Context, verb string, bus *installer.Bus) error {
	if refused := installer.Refusal(f.opts.Root, version.Version); refused != nil && verb == "install" && !f.opts.Retry {
		return refused
	}
	dir, err := installer.Stage(f.opts.Root, f.config)
	if err != nil {
		return err
	}
	argv := []string{
		filepath.Join(dir, "userns-shim"), verb, "--bin-dir", f.opts.BinDir, "--kubelet-config", f.opts.KubeletConfig,
		"--kubelet-healthz", f.healthz, "--timeout", f.opts.Timeout.String(), "--settle", f.opts.Settle.String(),
	}
	if verb == "install" {
		argv = append(argv, fmt.Sprintf("--selftest=%t", f.selftest), fmt.Sprintf("--retry=%t", f.opts.Retry))
		if f.config != "" {
			argv = append(argv, "--config", filepath.Join(dir, "config.yaml"))
		}
	}
	if err := bus.Run(ctx, installerUnit, argv); err != nil {
		if why := installer.Refusal(f.opts.Root, version.Version); why != nil {
			return fmt.Errorf("%w: %w", err, why)
		}
		return fmt.Errorf("%w; the node's journal says more: journalctl -u %s", err, installerUnit)
	}
	return nil
}

func (f *installFlags) kubeletHealthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.healthz, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ask kubelet for its health: %w", err)
	}
	if err := resp.Body.Close(); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("kubelet's health at %s is %s", f.healthz, resp.Status)
	}
	return nil
}

// check runs the self-test on the userns-shim that was just started.
func (f *installFlags) check(ctx context.Context) error {
	ids, err := selftest.KubeletIDs(filepath.Join(f.opts.Root, subuidFile))
	if err != nil {
		return err
	}
	report, err := selftest.Run(ctx, selftest.Options{
		Endpoint: "unix://" + filepath.Join(f.opts.Root, strings.TrimPrefix(f.opts.Endpoint, "unix://")),
		IDs:      ids, Host: selftest.ProcHost{}, Program: "/proc/self/exe", Timeout: f.opts.Timeout,
	})
	if err != nil {
		return err
	}
	_, _, failed := report.Count()
	if failed == 0 {
		return nil
	}
	var text bytes.Buffer
	if err := report.WriteText(&text); err != nil {
		return err
	}
	return fmt.Errorf("%d of %d checks of the self-test failed:\n%s", failed, len(report.Checks), text.String())
}
