package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// settle is between two turns: what a runtime, and the kernel for it, does after its last call is not to
	// fall into the other's turn.
	settle = 500 * time.Millisecond
	// idle is how old the youngest pod is when memory is read.
	idle = time.Second
)

// bench takes the measurements.
type bench struct {
	*lab
	options
	out io.Writer
}

// run measures, and notes how busy the machine was meanwhile.
func (b *bench) run(ctx context.Context, about *report) error {
	before, err := b.usage()
	if err != nil {
		return err
	}
	if about.Rounds, err = b.measure(ctx); err != nil {
		return err
	}
	after, err := b.usage()
	if err != nil {
		return err
	}
	about.Seconds = after.at.Sub(before.at).Seconds()
	about.Others = after.othersShare(before, about.CPUs)
	about.LoadAfter, err = load()
	return err
}

// measure lets the runtimes take turns and returns how many rounds there were.
func (b *bench) measure(ctx context.Context) (int, error) {
	fmt.Fprintf(b.out, "Up to %d rounds of %d pods one after another and %d pods %d at a time, on each runtime in turn.\n",
		b.rounds, b.pods, b.pods, b.parallel)
	// The first pod makes the bridge and fills caches.
	for _, s := range b.sides {
		if err := b.oneByOne(ctx, s, 1, nil); err != nil {
			return 0, fmt.Errorf("first pod on %s: %w", s.name, err)
		}
	}
	begin := time.Now()
	for round := range b.rounds {
		if time.Since(begin) > b.limit {
			fmt.Fprintf(b.out, "\nThe time is up after %d of %d rounds.\n", round, b.rounds)
			return round, nil
		}
		for _, s := range b.sides {
			if err := b.turn(ctx, s); err != nil {
				return 0, fmt.Errorf("round %d on %s: %w", round+1, s.name, err)
			}
		}
		fmt.Fprintf(b.out, "round %d of %d: %s\n", round+1, b.rounds, time.Since(begin).Round(time.Second))
	}
	return b.rounds, nil
}

func (b *bench) turn(ctx context.Context, s *side) error {
	if err := b.oneByOne(ctx, s, b.pods, s.figures); err != nil {
		return err
	}
	if err := sleep(ctx, settle); err != nil {
		return err
	}
	if err := b.sideBySide(ctx, s); err != nil {
		return err
	}
	return sleep(ctx, settle)
}

func (b *bench) oneByOne(ctx context.Context, s *side, count int, into figures) error {
	for range count {
		p, err := b.newPod(s)
		if err != nil {
			return err
		}
		if err := s.start(ctx, p, into); err != nil {
			return err
		}
		if err := s.stop(ctx, p, into); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) sideBySide(ctx context.Context, s *side) error {
	pods := make([]*pod, b.pods)
	for i := range pods {
		var err error
		if pods[i], err = b.newPod(s); err != nil {
			return err
		}
	}
	spent, err := b.each(ctx, s, pods, s.start)
	if err != nil {
		return err
	}
	s.figures.add(startCPU, milliseconds(spent.processor)/float64(b.pods))
	s.figures.add(startRate, float64(b.pods)/spent.elapsed.Seconds())
	if err := sleep(ctx, idle); err != nil {
		return err
	}
	if err := s.readMemory(b.pods); err != nil {
		return err
	}
	if spent, err = b.each(ctx, s, pods, s.stop); err != nil {
		return err
	}
	s.figures.add(stopCPU, milliseconds(spent.processor)/float64(b.pods))
	s.figures.add(stopRate, float64(b.pods)/spent.elapsed.Seconds())
	return nil
}

// cost is what a runtime took for something.
type cost struct {
	elapsed, processor time.Duration
}

// each does something with all pods, so many of them at a time. Single calls are not recorded: side by side they
// mostly wait for each other.
func (b *bench) each(ctx context.Context, s *side, pods []*pod, do func(context.Context, *pod, figures) error) (cost, error) {
	before, err := s.account.processorTime()
	if err != nil {
		return cost{}, err
	}
	begin := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(b.parallel)
	for _, p := range pods {
		group.Go(func() error { return do(ctx, p, nil) })
	}
	if err := group.Wait(); err != nil {
		return cost{}, err
	}
	elapsed := time.Since(begin)
	after, err := s.account.processorTime()
	return cost{elapsed: elapsed, processor: after - before}, err
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
