package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// badCase is one request and what becomes of it. OK stands for requests that look bad and are not.
type badCase struct {
	name string
	req  proto.Message
	code codes.Code
	says string // in the error: the field or the value at fault
}

// TestBadInputOfEveryRPC sends each RPC of the API what a confused or hostile client could: its table of cases, ids of
// every kind where it has one, and bytes that are no message. An RPC without a case fails the test. The shared
// node's check holds that nothing is left behind.
func TestBadInputOfEveryRPC(t *testing.T) {
	n := sharedNode(t)
	conn, err := n.Daemon.Dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	b := newBadInput(t, n)
	tables := b.tables()
	for _, method := range methodsOfAPI() {
		name := string(method.Name())
		cases := append(tables[name], b.idCases(method)...)
		if len(cases) == 0 && method.Input().Fields().Len() > 0 {
			t.Errorf("%s has no case", name)
		}
		delete(tables, name)
		for _, c := range cases {
			t.Run(name+"/"+c.name, func(t *testing.T) {
				wantAnswer(t, callRPC(t.Context(), conn, method, c.req), c)
			})
		}
		t.Run(name+"/no message of the API", func(t *testing.T) {
			err := callRPC(t.Context(), conn, method, garbled(method))
			wantError(t, err, codes.Internal, "unmarshal") // gRPC's own word for it
		})
	}
	for name := range tables {
		t.Errorf("the API has no %s", name)
	}
	if got := b.pods[0].Output(t, b.image, nodetest.Command("echo", "still good")); got != "still good" {
		t.Errorf("a good container after all that prints %q", got)
	}
}

// wantAnswer holds an error's code, that it names what is wrong, and that it does so in few words.
func wantAnswer(t *testing.T, err error, c badCase) {
	t.Helper()
	if c.code == codes.OK {
		if err != nil {
			t.Errorf("%v, want success", err)
		}
		return
	}
	wantError(t, err, c.code, c.says)
	if text := status.Convert(err).Message(); len(text) > 16<<10 || strings.Contains(text, "\x00") {
		t.Errorf("the error has %d bytes, or a NUL: %.300q", len(text), text)
	}
}

func methodsOfAPI() []protoreflect.MethodDescriptor {
	var out []protoreflect.MethodDescriptor
	services := (&runtimeapi.VersionRequest{}).ProtoReflect().Descriptor().ParentFile().Services()
	for i := range services.Len() {
		for j := range services.Get(i).Methods().Len() {
			out = append(out, services.Get(i).Methods().Get(j))
		}
	}
	return out
}

// callRPC makes a call, and reads a stream to its end. That of events has none, so that its start counts.
func callRPC(ctx context.Context, conn *grpc.ClientConn, method protoreflect.MethodDescriptor, req proto.Message) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	name := fmt.Sprintf("/%s/%s", method.Parent().FullName(), method.Name())
	if !method.IsStreamingServer() {
		return conn.Invoke(ctx, name, req, dynamicpb.NewMessage(method.Output()))
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, name)
	if err != nil {
		return err
	}
	if err := errors.Join(stream.SendMsg(req), stream.CloseSend()); err != nil {
		return err
	}
	for {
		err := stream.RecvMsg(dynamicpb.NewMessage(method.Output()))
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// garbled is a request whose bytes say that a first field follows, which then does not.
func garbled(method protoreflect.MethodDescriptor) proto.Message {
	msg := dynamicpb.NewMessage(method.Input())
	msg.SetUnknown(protoreflect.RawFields{0x0a, 0x7f})
	return msg
}

// badInput is what the cases are about: pods and containers of which two have ids that begin alike.
type badInput struct {
	node       *nodetest.Node
	image      string
	dir        string // empty
	pods       []*nodetest.Pod
	containers []*nodetest.Container
	running    *nodetest.Container
	podPrefix  string // of at least two sandboxes' ids
	ctrPrefix  string // of at least two containers' ids
}

func newBadInput(t *testing.T, n *nodetest.Node) *badInput {
	t.Helper()
	b := &badInput{node: n, image: n.Image(t, labimage.Demo), dir: t.TempDir()}
	t.Cleanup(func() {
		if names, err := os.ReadDir(b.dir); err != nil || len(names) > 0 {
			t.Errorf("the directory for checkpoints has %v, %v", names, err)
		}
	})
	for seen := map[string]bool{}; b.podPrefix == ""; {
		pod := n.RunPod(t, nodetest.HostNetwork)
		b.pods = append(b.pods, pod)
		if seen[pod.ID[:1]] {
			b.podPrefix = pod.ID[:1]
		}
		seen[pod.ID[:1]] = true
	}
	for seen := map[string]bool{}; b.ctrPrefix == ""; {
		c := b.pods[0].Create(t, b.image)
		b.containers = append(b.containers, c)
		if seen[c.ID[:1]] {
			b.ctrPrefix = c.ID[:1]
		}
		seen[c.ID[:1]] = true
	}
	b.running = b.containers[0]
	b.running.Start(t)
	return b
}

// idempotent are the RPCs of which CRI says that an id which names nothing is no error.
var idempotent = map[protoreflect.Name]bool{"StopPodSandbox": true, "RemovePodSandbox": true, "StopContainer": true, "RemoveContainer": true}

// idCases are for RPCs that are about one sandbox or container.
func (b *badInput) idCases(method protoreflect.MethodDescriptor) []badCase {
	field, prefix := method.Input().Fields().ByName("pod_sandbox_id"), b.podPrefix
	if field == nil {
		field, prefix = method.Input().Fields().ByName("container_id"), b.ctrPrefix
	}
	if field == nil {
		return nil
	}
	unknown := codes.NotFound
	if idempotent[method.Name()] {
		unknown = codes.OK
	}
	var out []badCase
	add := func(name, id string, code codes.Code, says string) {
		out = append(out, badCase{name, b.about(method, field, id), code, says})
	}
	add("empty id", "", codes.InvalidArgument, string(field.Name()))
	add("id of 300 bytes", strings.Repeat("a", 300), codes.InvalidArgument, string(field.Name()))
	add("id of 1 MiB", strings.Repeat("a", 1<<20), codes.InvalidArgument, string(field.Name()))
	add("id that names nothing", strings.Repeat("0", 64), unknown, "")
	add("id with NUL", "a\x00b", unknown, "")
	add("id with a newline", "a\nb", unknown, "")
	add("id that climbs", "../../"+b.running.ID, unknown, "")
	add("prefix of several ids", prefix, codes.InvalidArgument, fmt.Sprintf("ambiguous: %q names ", prefix))
	return out
}

// about is a good request, apart from the id.
func (b *badInput) about(method protoreflect.MethodDescriptor, field protoreflect.FieldDescriptor, id string) proto.Message {
	var msg proto.Message = dynamicpb.NewMessage(method.Input())
	switch method.Name() {
	case "CreateContainer":
		msg = &runtimeapi.CreateContainerRequest{Config: b.pods[0].ContainerConfig(b.image), SandboxConfig: b.pods[0].Request.Config}
	case "Exec":
		msg = &runtimeapi.ExecRequest{Cmd: []string{"true"}, Stdout: true}
	case "ExecSync":
		msg = &runtimeapi.ExecSyncRequest{Cmd: []string{"true"}}
	case "CheckpointContainer":
		msg = &runtimeapi.CheckpointContainerRequest{Location: b.dir + "/checkpoint.tar"}
	case "CheckpointPod":
		msg = &runtimeapi.CheckpointPodRequest{ContainerIds: []string{b.running.ID}, OutputPath: b.dir}
	}
	msg.ProtoReflect().Set(msg.ProtoReflect().Descriptor().Fields().ByName(field.Name()), protoreflect.ValueOfString(id))
	return msg
}
