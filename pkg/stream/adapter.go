package stream

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/url"
	"strings"

	"k8s.io/klog/v2"
	utilexec "k8s.io/utils/exec"
)

// adapter is the Runtime as cri-streaming wants it.
type adapter struct {
	server *Server
}

// Exec implements streaming.Runtime. A non-zero exit code becomes the error type that
// cri-streaming turns into the client's exit code.
func (a *adapter) Exec(ctx context.Context, target string, cmd []string, in io.Reader, out, errs io.WriteCloser, tty bool, resize <-chan Size) error {
	code := 0
	err := a.session(ctx, target, rawStreams{in, out, errs, tty, resize}, func(ctx context.Context, id string, s Streams) error {
		var err error
		code, err = a.server.runtime.Exec(ctx, id, cmd, s)
		return err
	})
	if err == nil && code != 0 {
		return utilexec.CodeExitError{Err: fmt.Errorf("exit code %d", code), Code: code}
	}
	return err
}

// Attach implements streaming.Runtime.
func (a *adapter) Attach(ctx context.Context, target string, in io.Reader, out, errs io.WriteCloser, tty bool, resize <-chan Size) error {
	return a.session(ctx, target, rawStreams{in, out, errs, tty, resize}, a.server.runtime.Attach)
}

// PortForward implements streaming.Runtime. cri-streaming gives it no request's context.
func (a *adapter) PortForward(ctx context.Context, sandboxID string, port int32, client io.ReadWriteCloser) error {
	if port <= 0 || port > math.MaxUint16 {
		return fmt.Errorf("forward port %d: not a TCP port", port)
	}
	ctx, leave, err := a.server.active.begin(klog.NewContext(ctx, a.server.logger))
	if err != nil {
		return err
	}
	defer leave()
	return a.server.runtime.PortForward(ctx, sandboxID, uint16(port), client)
}

// session runs one exec or attach on streams that can be closed.
func (a *adapter) session(ctx context.Context, target string, raw rawStreams, run func(context.Context, string, Streams) error) error {
	want, id, err := decodeTarget(target)
	if err != nil {
		return err
	}
	ctx, leave, err := a.server.active.begin(ctx)
	if err != nil {
		return err
	}
	ctx, r := startRelay(ctx, want, raw)
	err = run(ctx, id, r.streams)
	r.finish(ctx)
	go func() { // what still reads from the connection ends after this request, which closes it
		r.running.Wait()
		leave()
	}()
	return err
}

// wanted is which streams a request asked for. cri-streaming does not say: with
// WebSocket it passes streams that nobody asked for, and a stdin that has already
// ended would end the container's.
type wanted struct {
	stdin, stdout, stderr, tty bool
}

// marks is a letter for each of w's streams.
func (w wanted) marks() string {
	var b strings.Builder
	for _, f := range []struct {
		set  bool
		mark byte
	}{{w.stdin, 'i'}, {w.stdout, 'o'}, {w.stderr, 'e'}, {w.tty, 't'}} {
		if f.set {
			b.WriteByte(f.mark)
		}
	}
	return b.String()
}

func decodeMarks(marks string) wanted {
	return wanted{
		stdin:  strings.Contains(marks, "i"),
		stdout: strings.Contains(marks, "o"),
		stderr: strings.Contains(marks, "e"),
		tty:    strings.Contains(marks, "t"),
	}
}

// encode puts w in front of a container's id, which cri-streaming carries from the
// request to the Runtime unread. An empty id stays empty, so that it is refused.
func (w wanted) encode(id string) string {
	if id == "" {
		return ""
	}
	return w.marks() + "@" + id
}

func decodeTarget(target string) (wanted, string, error) {
	marks, id, ok := strings.Cut(target, "@")
	if !ok {
		return wanted{}, "", fmt.Errorf("stream request for %q: no marks of its streams", target)
	}
	return decodeMarks(marks), id, nil
}

// mark puts w into the URL of a request, for the protocols whose streams have to be
// known before cri-streaming tells.
func (w wanted) mark(rawURL string) (string, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return "", fmt.Errorf("URL of a stream request: %w", err)
	}
	u.Path = "/" + w.marks() + u.Path
	return u.String(), nil
}
