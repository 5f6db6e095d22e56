// Command demo shows what userns-shim does, on a node of its own that it makes and removes: a private
// containerd, a registry on loopback, userns-shim, and two pods with hostUsers: false. hack/demo.sh
// builds and starts it; the programs that it runs are those in bin/.
//
//	demo         show everything, then remove it
//	demo keep    show everything and leave it running in the background
//	demo stop    remove what demo keep left running
//
// It is for people to watch. What it shows is checked by `userns-shim selftest` and the tests.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// limit bounds the demo on a slow machine; it takes a few seconds.
const limit = 3 * time.Minute

func main() {
	// A closed terminal or pipe ends the demo like Ctrl-C: with everything removed.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	mode := ""
	if len(args) > 0 {
		mode = args[0]
	}
	switch mode {
	case "":
		return show(ctx, os.Stdout, nil)
	case "keep":
		return startKeeper(ctx)
	case keeperMode:
		closeOnExec(readyFD)
		return show(ctx, os.Stdout, keep)
	case "stop":
		return stopKept(ctx, os.Stdout)
	}
	return fmt.Errorf("unknown argument %q: want keep, stop or none", mode)
}

// show brings the node up, shows it, and removes it however that went. Before the removal of what was
// shown it calls meanwhile, if there is one, which returns where to write from then on.
func show(ctx context.Context, out io.Writer, meanwhile func(context.Context, *demo) (io.WriteCloser, error)) (err error) {
	d := &demo{screen: screen{out: out}}
	defer func() {
		if ctx.Err() != nil {
			err = errors.New("interrupted")
		}
		if err != nil {
			d.explain(ctx)
		}
		err = errors.Join(err, d.remove(ctx))
	}()
	timed, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the demo took longer than %s", limit))
	defer cancel()
	if err := d.showAll(timed); err != nil || meanwhile == nil {
		return err
	}
	end, err := meanwhile(ctx, d)
	if err != nil {
		return err
	}
	d.out = end
	d.closeOut = end
	return nil
}
