package cri

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
)

// serveOnSocket serves until the test ends, and returns a connection.
func serveOnSocket(tb testing.TB, server *grpc.Server) *grpc.ClientConn {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "cri.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		tb.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	conn, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(2*maxMessage)))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := conn.Close(); err != nil {
			tb.Error(err)
		}
		server.Stop()
		if err := <-done; err != nil {
			tb.Error(err)
		}
	})
	return conn
}

// TestPanicIsTheErrorOfOneCall lets a unary and a streaming handler run into managers that are missing.
func TestPanicIsTheErrorOfOneCall(t *testing.T) {
	client := runtimeapi.NewRuntimeServiceClient(serveWithoutManagers(t))
	_, err := client.ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: "a"})
	if status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "internal error") {
		t.Errorf("a unary handler that panics: %v, want Internal", err)
	}
	stream, err := client.StreamContainers(t.Context(), &runtimeapi.StreamContainersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "internal error") {
		t.Errorf("a streaming handler that panics: %v, want Internal", err)
	}
	if _, err := client.Version(t.Context(), &runtimeapi.VersionRequest{}); err != nil {
		t.Errorf("Version afterwards: %v", err)
	}
}

// TestMessagesAreBounded sends requests of about the 16 MiB that kubelet allows a message.
func TestMessagesAreBounded(t *testing.T) {
	client := runtimeapi.NewRuntimeServiceClient(serveWithoutManagers(t))
	request := func(size int) error {
		_, err := client.Version(t.Context(), &runtimeapi.VersionRequest{Version: strings.Repeat("v", size)})
		return err
	}
	if err := request(maxMessage - 1024); err != nil {
		t.Errorf("a request below the limit: %v", err)
	}
	if err := request(maxMessage); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a request above the limit: %v, want ResourceExhausted", err)
	}
	if err := request(0); err != nil {
		t.Errorf("a request afterwards: %v", err)
	}
}

// TestErrorsAreShort holds that an error about a huge value has few words and says both what failed and why.
func TestErrorsAreShort(t *testing.T) {
	err := shorten(invalid("value %s: %s", strings.Repeat("\u00e9", 1<<20), "the reason"))
	text := status.Convert(err).Message()
	if len(text) > maxText || !strings.HasPrefix(text, "value ") || !strings.HasSuffix(text, "the reason") || status.Code(err) != codes.InvalidArgument {
		t.Errorf("%d bytes: %.50s ... %s", len(text), text, text[max(len(text)-50, 0):])
	}
	if short := invalid("x"); !errors.Is(shorten(short), short) || shorten(nil) != nil {
		t.Error("a short error is changed")
	}
}

// TestHandlersHaveTheCallsContext serves methods of its own: both kinds of handlers have the logger that names the
// method, and end with the client's deadline.
func TestHandlersHaveTheCallsContext(t *testing.T) {
	var mu sync.Mutex
	var lines []string
	observed := make(chan codes.Code, 16)
	around := Interceptors{
		Logger: funcr.New(func(_, args string) {
			mu.Lock()
			defer mu.Unlock()
			lines = append(lines, args)
		}, funcr.Options{}),
		Observe: func(_ string, code codes.Code, _ time.Duration) { observed <- code },
		Ready:   func() error { return nil },
	}
	handle := func(ctx context.Context) error {
		klog.FromContext(ctx).Info("Inside")
		<-ctx.Done()
		return ctx.Err()
	}
	server := grpc.NewServer(around.ServerOptions()...)
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "test",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Unary", Handler: func(_ any, ctx context.Context, _ func(any) error, around grpc.UnaryServerInterceptor) (any, error) {
			return around(ctx, nil, &grpc.UnaryServerInfo{FullMethod: "/test/Unary"}, func(ctx context.Context, _ any) (any, error) { return nil, handle(ctx) })
		}}},
		Streams: []grpc.StreamDesc{{StreamName: "Streaming", ServerStreams: true, Handler: func(_ any, stream grpc.ServerStream) error { return handle(stream.Context()) }}},
	}, struct{}{})
	conn := serveOnSocket(t, server)
	for _, method := range []string{"Unary", "Streaming"} {
		code := untilDeadline(t, conn, "/test/"+method, observed)
		// Canceled, where the client's news of it came before the server's own clock.
		if code != codes.DeadlineExceeded && code != codes.Canceled {
			t.Errorf("%s until the deadline ends with %s on the server, want DeadlineExceeded or Canceled", method, code)
		}
		mu.Lock()
		if text := strings.Join(lines, "\n"); !strings.Contains(text, `"msg"="Inside" "method"="`+method+`"`) {
			t.Errorf("the handler of %s logs without the method:\n%s", method, text)
		}
		mu.Unlock()
	}
}

// untilDeadline makes a call with a deadline, and returns how it ended on the server. A machine that is busy may let the time pass before the
// server has the call; then it is another with more time.
func untilDeadline(t *testing.T, conn *grpc.ClientConn, method string, observed <-chan codes.Code) codes.Code {
	t.Helper()
	for limit := 100 * time.Millisecond; limit < 30*time.Second; limit *= 3 {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, method)
		if err == nil {
			err = stream.SendMsg(&runtimeapi.VersionRequest{})
		}
		if err != nil && ctx.Err() == nil {
			t.Fatal(err)
		}
		<-ctx.Done()
		select {
		case code := <-observed:
			return code
		case <-time.After(3 * time.Second):
		}
	}
	t.Fatalf("the server never had the call of %s", method)
	return codes.OK
}
