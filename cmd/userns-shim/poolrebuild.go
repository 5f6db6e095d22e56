package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/userns-shim/userns-shim/internal/admin"
	"github.com/userns-shim/userns-shim/internal/config"
	"github.com/userns-shim/userns-shim/pkg/rebuild"
	"github.com/userns-shim/userns-shim/pkg/state"
)

func poolRebuildCommand(f *poolFlags) *cobra.Command {
	var from serveFlags
	var dryRun, force bool
	cmd := &cobra.Command{
		Use:   "rebuild",
		Short: "Make a damaged or lost database again, without stopping a pod",
		Long: `Make a damaged or lost database again from what runs on the node: the copies of the records under the
state directory, the pinned namespaces, processes, and what containerd has. No pod is stopped. The old
database is kept beside the new one. userns-shim must not run meanwhile; containerd has to.

What cannot be known any more: ranges that were in quarantine and of which neither a process nor a writable layer tells
are free, and so are reservations that no pod uses; make those again with userns-shim pool reserve.`,
		Example: `  systemctl stop userns-shim
  userns-shim pool rebuild --config /etc/userns-shim/config.yaml --dry-run
  userns-shim pool rebuild --config /etc/userns-shim/config.yaml
  systemctl start userns-shim`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			from.state = f.state
			cfg, err := from.load(cmd.Flags())
			if err != nil {
				return usageError{err}
			}
			r := rebuilder{cfg: cfg, dryRun: dryRun, force: force, now: time.Now()}
			done, err := r.run(cmd.Context())
			if err != nil {
				return err
			}
			return f.print(cmd.OutOrStdout(), done, func(t *tabwriter.Writer) { rebuildTable(t, done) })
		},
	}
	flags := cmd.Flags()
	def := config.Default()
	flags.StringVar(&from.config, "config", "", "configuration `file` of the daemon (default: none, all defaults)")
	flags.StringVar(&from.containerd, "containerd", def.Containerd.Address, "`path` of containerd's socket")
	flags.StringVar(&from.root, "root", def.Root, "`directory` of what outlives a reboot")
	flags.BoolVar(&dryRun, "dry-run", false, "only print what would be written")
	flags.BoolVar(&force, "force", false, "replace a database that is in order, and forget its quarantine and unused reservations")
	return cmd
}

// rebuilt is what the command prints.
type rebuilt struct {
	Database string `json:"database"`
	// Kept is where the old database is; empty where there was none, or nothing was written.
	Kept       string             `json:"kept,omitempty"`
	Written    bool               `json:"written"`
	Sandboxes  []rebuiltSandbox   `json:"sandboxes"`
	Containers []rebuiltContainer `json:"containers"`
	Resting    []rebuiltRange     `json:"resting"`
	Notes      []string           `json:"notes,omitempty"`
}

type rebuiltSandbox struct {
	ID     string `json:"id"`
	Pod    string `json:"pod"` // namespace/name
	UID    string `json:"uid"`
	Phase  string `json:"phase"`
	Range  string `json:"range,omitempty"` // start:length, empty for the host's ids
	Source string `json:"source"`          // record or node
}

type rebuiltContainer struct {
	ID      string `json:"id"`
	Sandbox string `json:"sandbox"`
	Name    string `json:"name"`
	State   string `json:"state"`
	Source  string `json:"source"`
}

type rebuiltRange struct {
	Range string `json:"range"`
	Why   string `json:"why"`
}

// rebuilder makes one database again.
type rebuilder struct {
	cfg           config.Config
	dryRun, force bool
	now           time.Time
}

func (r rebuilder) run(ctx context.Context) (done rebuilt, err error) {
	path := databasePath(r.cfg.Root)
	if err := r.refuse(path); err != nil {
		return rebuilt{}, err
	}
	seized, err := state.Seize(path)
	if err != nil {
		return rebuilt{}, err
	}
	defer func() { err = errors.Join(err, seized.Close()) }()
	plan, opts, err := r.plan(ctx)
	if err != nil {
		return rebuilt{}, fmt.Errorf("look at the node: %w", err)
	}
	done = describe(plan)
	done.Database = path
	if r.dryRun {
		return done, nil
	}
	fresh := path + ".rebuilt"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return rebuilt{}, err
	}
	db, err := state.Open(state.Options{Path: fresh})
	if err != nil {
		return rebuilt{}, err
	}
	if err := errors.Join(plan.Write(db, opts), db.Close()); err != nil {
		return rebuilt{}, err
	}
	if _, err := os.Stat(path); err == nil {
		done.Kept = path + ".old-" + r.now.UTC().Format("20060102T150405.000000000Z")
	}
	done.Written = true
	return done, seized.Replace(fresh, done.Kept)
}

// refuse says why nothing is to be made again: a daemon that runs, or a database that is in order.
func (r rebuilder) refuse(path string) error {
	for _, socket := range []string{admin.SocketPath(r.cfg.State), strings.TrimPrefix(r.cfg.Listen, "unix://")} {
		if conn, err := net.DialTimeout("unix", socket, time.Second); err == nil {
			return errors.Join(fmt.Errorf("userns-shim runs and serves %s: stop it first; its pods run on", socket), conn.Close())
		}
	}
	err := state.Verify(path)
	switch {
	case errors.Is(err, state.ErrLocked):
		return fmt.Errorf("%w: stop it first; its pods run on", err)
	case err != nil && !errors.Is(err, state.ErrDamaged) && !errors.Is(err, state.ErrSchema) && !errors.Is(err, fs.ErrNotExist):
		return err
	case err == nil && !r.force && !r.dryRun:
		return fmt.Errorf("database %s is in order; --force makes it again all the same, and forgets its quarantine and the reservations that no pod uses", path)
	}
	return nil
}

func describe(p rebuild.Plan) rebuilt {
	out := rebuilt{Sandboxes: []rebuiltSandbox{}, Containers: []rebuiltContainer{}, Resting: []rebuiltRange{}, Notes: p.Notes}
	for _, s := range p.Sandboxes {
		md := s.Spec.Metadata
		row := rebuiltSandbox{ID: s.ID, Pod: md.Namespace + "/" + md.Name, UID: md.UID, Phase: string(s.Phase), Source: string(s.Source)}
		if s.Range != nil {
			row.Range = s.Range.String()
		}
		out.Sandboxes = append(out.Sandboxes, row)
	}
	for _, c := range p.Containers {
		out.Containers = append(out.Containers, rebuiltContainer{
			ID: c.ID, Sandbox: c.SandboxID, Name: c.Spec.Metadata.Name, State: string(c.State), Source: string(c.Source),
		})
	}
	for _, r := range p.Resting {
		out.Resting = append(out.Resting, rebuiltRange{Range: r.Range.String(), Why: r.Why})
	}
	return out
}

func rebuildTable(t *tabwriter.Writer, r rebuilt) {
	short := func(id string) string { return id[:min(len(id), 13)] }
	fmt.Fprintln(t, "SANDBOX\tPOD\tPHASE\tRANGE\tFROM")
	for _, s := range r.Sandboxes {
		ids := s.Range
		if ids == "" {
			ids = "host"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", short(s.ID), s.Pod, s.Phase, ids, s.Source)
	}
	fmt.Fprintln(t, "\nCONTAINER\tSANDBOX\tNAME\tSTATE\tFROM")
	for _, c := range r.Containers {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", short(c.ID), short(c.Sandbox), c.Name, c.State, c.Source)
	}
	if len(r.Resting) > 0 {
		fmt.Fprintln(t, "\nQUARANTINE\tBECAUSE")
	}
	for _, q := range r.Resting {
		fmt.Fprintf(t, "%s\t%s\n", q.Range, q.Why)
	}
	fmt.Fprintln(t)
	for _, note := range r.Notes {
		fmt.Fprintf(t, "Note: %s\n", note)
	}
	switch {
	case !r.Written:
		fmt.Fprintf(t, "Nothing was written; without --dry-run this becomes %s.\n", r.Database)
	case r.Kept == "":
		fmt.Fprintf(t, "Written to %s.\n", r.Database)
	default:
		fmt.Fprintf(t, "Written to %s; the old database is %s.\n", r.Database, r.Kept)
	}
}
