package main

import (
	"context"
	"flag"
	"log/slog"

	"github.com/containerd/log"
	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/internal/config"
	"github.com/userns-shim/userns-shim/internal/version"
)

// serveFlags are those that override the configuration file where they are given.
type serveFlags struct {
	config        string
	listen        string
	containerd    string
	root          string
	state         string
	metricsListen string
}

func serveCommand() *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve CRI on a unix socket",
		Long: `Serve CRI on a unix socket until SIGTERM or SIGINT. Containers run on when
userns-shim ends, and it finds them again at its next start.`,
		Example: `  # With the defaults, on a node with containerd:
  userns-shim serve

  # With a configuration file, and more to read in the log:
  userns-shim serve --config /etc/userns-shim/config.yaml -v 4

  # Then point kubelet at it:
  kubelet --container-runtime-endpoint=unix:///run/userns-shim/userns-shim.sock ...`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := f.load(cmd.Flags())
			if err != nil {
				return usageError{err}
			}
			return serve(cmd.Context(), cfg)
		},
	}
	f.register(cmd.Flags())
	addLogFlags(cmd.Flags())
	return cmd
}

func (f *serveFlags) register(flags *pflag.FlagSet) {
	def := config.Default()
	flags.StringVar(&f.config, "config", "", "configuration `file` (default: none, all defaults; see userns-shim config default)")
	flags.StringVar(&f.listen, "listen", def.Listen, "`address` of the CRI socket")
	flags.StringVar(&f.containerd, "containerd", def.Containerd.Address, "`path` of containerd's socket")
	flags.StringVar(&f.root, "root", def.Root, "`directory` of what outlives a reboot")
	flags.StringVar(&f.state, "state", def.State, "`directory` of what does not outlive a reboot")
	flags.StringVar(&f.metricsListen, "metrics-listen", def.MetricsListen, "`address` of /metrics and /statusz, empty for none")
}

// load reads the file and puts the flags that were given over it.
func (f *serveFlags) load(flags *pflag.FlagSet) (config.Config, error) {
	cfg, err := config.Load(f.config)
	if err != nil {
		return config.Config{}, err
	}
	for name, field := range map[string]struct{ to, from *string }{
		"listen":         {&cfg.Listen, &f.listen},
		"containerd":     {&cfg.Containerd.Address, &f.containerd},
		"root":           {&cfg.Root, &f.root},
		"state":          {&cfg.State, &f.state},
		"metrics-listen": {&cfg.MetricsListen, &f.metricsListen},
	} {
		if flags.Changed(name) {
			*field.to = *field.from
		}
	}
	return cfg, cfg.Validate()
}

// addLogFlags takes over klog's -v and -vmodule; its others are deprecated.
func addLogFlags(flags *pflag.FlagSet) {
	var all flag.FlagSet
	klog.InitFlags(&all)
	for _, name := range []string{"v", "vmodule"} {
		flags.AddGoFlag(all.Lookup(name))
	}
}

// serve runs the daemon until ctx ends.
func serve(ctx context.Context, cfg config.Config) error {
	defer klog.Flush()
	logger := klog.Background()
	ctx = klog.NewContext(ctx, logger)
	bridgeLibraryLogs(logger)
	logger.Info("Starting", "version", version.Version, "listen", cfg.Listen, "containerd", cfg.Containerd.Address)
	d, err := newDaemon(ctx, cfg)
	if err != nil {
		return err
	}
	return d.run(ctx)
}

// bridgeLibraryLogs sends what containerd's libraries log into our log. What they call errors
// comes back to us as errors too, so theirs are for those who ask for more.
func bridgeLibraryLogs(logger klog.Logger) {
	slog.SetDefault(slog.New(logr.ToSlogHandler(logger.WithName("containerd").V(libraryLevel))))
	log.UseSlog()
}

// libraryLevel is the verbosity of libraries' messages.
const libraryLevel = 3
