package engine

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/klog/v2"
)

// stalledError ends a pull that waits for a registry in vain. It is context.DeadlineExceeded.
type stalledError struct {
	timeout  time.Duration
	received int64
}

func (e *stalledError) Error() string {
	return fmt.Sprintf("no progress for %v after %d bytes", e.timeout, e.received)
}

func (e *stalledError) Is(target error) bool { return target == context.DeadlineExceeded }

// progressInterval is how often the log tells of a pull, and the longest time between two looks.
const progressInterval = 10 * time.Second

// progress counts what a pull receives, and cancels it when that is nothing for too long while a
// request is under way. Time spent on unpacking does not count.
type progress struct {
	requests atomic.Int64 // under way
	bytes    atomic.Int64 // received so far

	cancel context.CancelCauseFunc
	done   sync.WaitGroup
}

// startProgress begins to watch a pull, and returns the context that is cancelled when it stalls.
// The caller calls stop at the end.
func startProgress(ctx context.Context, timeout time.Duration) (context.Context, *progress) {
	ctx, cancel := context.WithCancelCause(ctx)
	p := &progress{cancel: cancel}
	p.done.Go(func() { p.look(ctx, timeout) })
	return ctx, p
}

func (p *progress) stop() {
	p.cancel(nil)
	p.done.Wait()
}

func (p *progress) look(ctx context.Context, timeout time.Duration) {
	interval := progressInterval
	if timeout > 0 {
		interval = min(interval, max(timeout/4, time.Millisecond))
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	seen, since, told := int64(-1), time.Now(), time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if now := p.bytes.Load(); now != seen || p.requests.Load() == 0 {
			seen, since = now, time.Now()
		}
		if time.Since(told) >= progressInterval {
			told = time.Now()
			klog.FromContext(ctx).V(2).Info("Still pulling image", "bytes", seen, "requests", p.requests.Load())
		}
		if timeout > 0 && time.Since(since) > timeout {
			p.cancel(&stalledError{timeout: timeout, received: seen})
			return
		}
	}
}

// watch puts the counting into an HTTP client.
func (p *progress) watch(c *http.Client) error {
	c.Transport = watchedTransport{inner: c.Transport, progress: p}
	return nil
}

type watchedTransport struct {
	inner    http.RoundTripper
	progress *progress
}

func (t watchedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	t.progress.requests.Add(1)
	resp, err := t.inner.RoundTrip(req)
	if err != nil {
		t.progress.requests.Add(-1)
		return nil, err
	}
	resp.Body = &watchedBody{ReadCloser: resp.Body, progress: t.progress}
	return resp, nil
}

type watchedBody struct {
	io.ReadCloser
	progress *progress
	once     sync.Once
}

func (b *watchedBody) Read(buf []byte) (int, error) {
	n, err := b.ReadCloser.Read(buf)
	b.progress.bytes.Add(int64(n))
	return n, err
}

func (b *watchedBody) Close() error {
	b.once.Do(func() { b.progress.requests.Add(-1) })
	return b.ReadCloser.Close()
}
