package stream

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/klog/v2"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

// channelsOf lists the channels of a WebSocket session, at the numbers that the
// protocol gives them.
func channelsOf(want wanted) []wsstream.ChannelType {
	channels := make([]wsstream.ChannelType, remotecommand.StreamResize+1)
	channels[remotecommand.StreamErr] = wsstream.WriteChannel
	for _, c := range []struct {
		asked  bool
		number int
		kind   wsstream.ChannelType
	}{
		{want.stdin, remotecommand.StreamStdIn, wsstream.ReadChannel},
		{want.stdout, remotecommand.StreamStdOut, wsstream.WriteChannel},
		{want.stderr, remotecommand.StreamStdErr, wsstream.WriteChannel},
		{want.tty, remotecommand.StreamResize, wsstream.ReadChannel},
	} {
		if c.asked {
			channels[c.number] = c.kind
		}
	}
	return channels
}

// bridge copies between the channels of a WebSocket and the streams of a SPDY client,
// whose server is at the other end of conn.
type bridge struct {
	ws       *wsstream.Conn
	channels []io.ReadWriteCloser
	conn     net.Conn

	outputs sync.WaitGroup // copiers to the client
	inputs  sync.WaitGroup // what ends with the WebSocket
}

// run returns when the server has ended its streams, or the client is gone, which ends
// ctx. It closes both connections.
func (b *bridge) run(ctx context.Context, want wanted) {
	stop := context.AfterFunc(ctx, func() { _ = b.conn.Close() })
	defer stop()
	server, err := spdy.NewClientConnection(b.conn)
	if err == nil {
		err = b.connect(server, want)
		b.finish(server)
		_ = server.Close()
	}
	if err != nil && ctx.Err() == nil {
		klog.FromContext(ctx).Error(err, "WebSocket client is not served")
	}
	// Closing the WebSocket tells the client that nothing follows, and ends the inputs.
	b.ws.SetWriteDeadline(closeWait)
	_, _ = b.ws.Close(), b.conn.Close()
	b.inputs.Wait()
}

// finish waits until the client has the outputs. A client that takes nothing for
// lastPieces after the server has ended the session is cut off.
func (b *bridge) finish(server httpstream.Connection) {
	taken := make(chan struct{})
	b.inputs.Go(func() {
		b.outputs.Wait()
		close(taken)
	})
	select {
	case <-taken:
		return
	case <-server.CloseChan():
	}
	patience := time.NewTicker(lastPieces)
	defer patience.Stop()
	for {
		select {
		case <-taken:
			return
		case <-patience.C:
			b.ws.SetWriteDeadline(0) // ends a blocked write; the next one would set another
		}
	}
}

// connect creates the streams that the server expects, and starts to copy.
func (b *bridge) connect(server httpstream.Connection, want wanted) error {
	for _, s := range []struct {
		asked  bool
		kind   string
		number int
		input  bool
	}{
		{true, remotecommand.StreamTypeError, remotecommand.StreamErr, false},
		{want.stdin, remotecommand.StreamTypeStdin, remotecommand.StreamStdIn, true},
		{want.stdout, remotecommand.StreamTypeStdout, remotecommand.StreamStdOut, false},
		{want.stderr, remotecommand.StreamTypeStderr, remotecommand.StreamStdErr, false},
		{want.tty, remotecommand.StreamTypeResize, remotecommand.StreamResize, true},
	} {
		if !s.asked {
			continue
		}
		stream, err := server.CreateStream(http.Header{remotecommand.StreamType: {s.kind}})
		if err != nil {
			_ = server.Close() // ends what was started
			return err
		}
		if s.input {
			b.inputs.Go(func() { copyInput(stream, b.channels[s.number]) })
		} else {
			b.outputs.Go(func() { b.copyOutput(b.channels[s.number], stream) })
		}
	}
	return nil
}

// copyInput passes the end of a channel on as the end of its stream.
func copyInput(stream httpstream.Stream, channel io.Reader) {
	_, _ = io.Copy(stream, channel)
	_ = stream.Close()
	_, _ = io.Copy(io.Discard, channel) // an unread channel would hold up the others
}

// copyOutput ends the session when the client does not take its output any more. What is
// left is read all the same: an unread stream keeps spdystream from seeing the end of
// the others.
func (b *bridge) copyOutput(channel io.Writer, stream io.Reader) {
	if _, err := io.Copy(channel, stream); err != nil {
		_ = b.conn.Close()
		_, _ = io.Copy(io.Discard, stream)
	}
}
