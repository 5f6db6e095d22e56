package cri

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// maxSteps bounds an input, and stepTimeout a call: nothing that a world does takes long.
const (
	maxSteps    = 24
	stepTimeout = 10 * time.Second
)

// program carries out one input in a world: a sequence of steps, most of them a call of an RPC.
type program struct {
	world *fuzzWorld
	tape  *tape
	tally map[protoreflect.Name]outcome // by method
	held  []heldStream
	calls []string // what was called and answered, to tell of
}

// outcome counts the calls of an RPC.
type outcome struct{ calls, ok int }

// heldStream is one that ends when the client goes.
type heldStream struct {
	cancel context.CancelFunc
	stream grpc.ClientStream
}

// fuzzMethods are all RPCs in the order of the API. A step's first byte chooses one of them, or, one further, that
// a container ends by itself.
func fuzzMethods() []protoreflect.MethodDescriptor {
	var out []protoreflect.MethodDescriptor
	services := apiFile().Services()
	for i := range services.Len() {
		for j := range services.Get(i).Methods().Len() {
			out = append(out, services.Get(i).Methods().Get(j))
		}
	}
	return out
}

var fuzzAPI = fuzzMethods()

func (p *program) run(t *testing.T) {
	t.Helper()
	for step := 0; step < maxSteps && len(p.tape.data) > 0; step++ {
		op := p.tape.pick(len(fuzzAPI) + 1)
		if op == len(fuzzAPI) {
			p.endContainer()
			continue
		}
		p.call(t, fuzzAPI[op])
	}
	for _, h := range p.held {
		h.cancel()
		if err := drain(h.stream); status.Code(err) != codes.Canceled {
			t.Errorf("a stream of events whose client goes ends with %v", err)
		}
	}
}

// endContainer lets the oldest container that runs exit by itself.
func (p *program) endContainer() {
	code := uint32(p.tape.next())
	for _, rec := range p.world.containers.List() {
		if p.world.engine.end(rec.ID, code) == nil {
			p.calls = append(p.calls, "exit of "+rec.ID)
			return
		}
	}
}

// call sends a request for one RPC: a good one with as many mutations as the tape says, or the tape's bytes as
// they are.
func (p *program) call(t *testing.T, method protoreflect.MethodDescriptor) {
	t.Helper()
	variant, mutations := p.tape.next(), p.tape.pick(8)
	var req wire
	if mutations == 7 {
		req = p.tape.take(p.tape.pick(64))
	} else {
		msg := p.request(method, variant)
		m := &mutator{tape: p.tape, dirs: p.world.dirs, ids: p.ids()}
		for range mutations {
			m.mutate(msg.ProtoReflect())
		}
		var err error
		if req, err = marshal(msg); err != nil {
			t.Fatal(err)
		}
	}
	err := p.send(t, method, req)
	p.calls = append(p.calls, fmt.Sprintf("%s %.200q: %.300v", method.Name(), []byte(req), err))
	if proto.Unmarshal(req, newMessage(method.Input())) != nil {
		// Such a request never reaches the server's code: gRPC's own answers it, and says so.
		if status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "unmarshal") {
			t.Errorf("%s answers a request that is no message of the API with %v", method.Name(), err)
		}
		return
	}
	p.judge(t, method, err)
}

// judge holds that a call ends well, or with a code that tells the client what is wrong with its request. The
// codes that kubelet takes for the node's fault, Internal and Unknown above all, are none of bad input; nor does
// any call here have a reason to last until its deadline.
func (p *program) judge(t *testing.T, method protoreflect.MethodDescriptor, err error) {
	t.Helper()
	o := p.tally[method.Name()]
	o.calls++
	code := status.Code(err)
	if code == codes.OK {
		o.ok++
	}
	p.tally[method.Name()] = o
	sane := []codes.Code{
		codes.OK, codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.FailedPrecondition, codes.ResourceExhausted, codes.Unimplemented,
	}
	if !slices.Contains(sane, code) || code == codes.Unimplemented && callWithoutManagers(method) != codes.Unimplemented {
		t.Errorf("%s answers %.1000v", method.Name(), err)
	}
	if n := len(status.Convert(err).Message()); n > maxText {
		t.Errorf("%s answers with %d bytes of text: %.300v", method.Name(), n, err)
	}
}

func (p *program) ids() []string {
	var out []string
	for _, rec := range p.world.sandboxes.List() {
		out = append(out, rec.ID)
	}
	for _, rec := range p.world.containers.List() {
		out = append(out, rec.ID)
	}
	return out
}

// send makes the call, and holds that what comes back is a message of the API.
func (p *program) send(t *testing.T, method protoreflect.MethodDescriptor, req wire) error {
	t.Helper()
	name := fmt.Sprintf("/%s/%s", method.Parent().FullName(), method.Name())
	ctx, cancel := context.WithTimeout(t.Context(), stepTimeout)
	if !method.IsStreamingServer() {
		defer cancel()
		var resp wire
		if err := p.world.conn.Invoke(ctx, name, req, &resp, grpc.ForceCodec(wireCodec{})); err != nil {
			return err
		}
		return proto.Unmarshal(resp, newMessage(method.Output()))
	}
	stream, err := p.world.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, name, grpc.ForceCodec(wireCodec{}))
	if err == nil {
		err = errors.Join(stream.SendMsg(req), stream.CloseSend())
	}
	if err == nil && method.Name() == "GetContainerEvents" && proto.Unmarshal(req, new(runtimeapi.GetEventsRequest)) == nil {
		p.held = append(p.held, heldStream{cancel, stream})
		return nil
	}
	defer cancel()
	if err != nil {
		return err
	}
	return drain(stream)
}

// drain reads a stream to its end, which is nil when the server ended it well.
func drain(stream grpc.ClientStream) error {
	for {
		var resp wire
		err := stream.RecvMsg(&resp)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func newMessage(d protoreflect.MessageDescriptor) proto.Message {
	kind, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		panic(err) // the API's own package is linked in
	}
	return kind.New().Interface()
}
