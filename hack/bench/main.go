// Command bench runs pods with hostUsers: false on userns-shim and on containerd's own CRI plugin, in turns on
// one node of its own, and prints what both took, side by side. hack/bench/run.sh builds and starts it; the
// programs that it runs are those in bin/.
//
// It sends what kubelet sends for such a pod: the mapping of ids, repeated on every mount. It pulls no image
// within a measurement, and it judges nothing: no figure makes it fail.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// options are the command line.
type options struct {
	pods     int // in each part of a turn
	rounds   int
	parallel int
	limit    time.Duration // no round begins after it
	out      string        // path of the JSON file
}

func main() {
	opts, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	err = run(ctx, opts)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parse(args []string) (options, error) {
	var opts options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.IntVar(&opts.pods, "pods", 16, "pods that each runtime starts one after another, and then side by side, in a round")
	flags.IntVar(&opts.rounds, "rounds", 5, "rounds; in each, the runtimes take turns")
	flags.IntVar(&opts.parallel, "parallel", 8, "how many pods come up side by side")
	flags.DurationVar(&opts.limit, "limit", 10*time.Minute, "no round begins after this time; twice as much ends the benchmark")
	flags.StringVar(&opts.out, "o", "_output/bench.json", "file for all samples")
	if err := flags.Parse(args); err != nil {
		return options{}, err
	}
	if flags.NArg() > 0 {
		return options{}, fmt.Errorf("unknown argument %q", flags.Arg(0))
	}
	return opts, opts.check()
}

func (o options) check() error {
	if o.pods < 1 || o.pods > kubeletRanges {
		return fmt.Errorf("-pods is %d, want 1 to %d", o.pods, kubeletRanges)
	}
	if o.rounds < 1 || o.parallel < 1 || o.limit <= 0 {
		return errors.New("-rounds, -parallel and -limit must be at least 1")
	}
	return nil
}

// run brings the node up, measures, and removes the node however that went.
func run(ctx context.Context, opts options) (err error) {
	timed, cancel := context.WithTimeoutCause(ctx, 2*opts.limit, fmt.Errorf("the benchmark took longer than %s", 2*opts.limit))
	defer cancel()
	about, err := describe(opts)
	if err != nil {
		return err
	}
	l := &lab{}
	defer func() {
		switch {
		case ctx.Err() != nil:
			err = errors.New("interrupted")
		case err != nil:
			l.explain()
		}
		err = errors.Join(err, l.remove(ctx))
	}()
	if err := l.bringUp(timed); err != nil {
		return err
	}
	b := bench{lab: l, options: opts, out: os.Stdout}
	if err := b.run(timed, &about); err != nil {
		return err
	}
	return about.finish(os.Stdout, l.sides, opts.out)
}
