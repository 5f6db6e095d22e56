package cri

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// maxSteps bounds an input, and stepTimeout a call: nothing that a world does takes long.
const (
	maxSteps    = 24
	stepTimeout = 30 * time.Second
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

// fuzzMethods are all RPCs in the order of the API. A step's first byte chooses one of them, or one of the
// operations that follow.
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

// Operations beyond the RPCs, as a step's first byte less their number.
const (
	opExit     = iota // a container ends by itself
	opTogether        // the next two steps, which are calls, at the same time
	opCount
)

func (p *program) run(t *testing.T) {
	t.Helper()
	for step := 0; step < maxSteps && len(p.tape.data) > 0; step++ {
		switch op := p.tape.pick(len(fuzzAPI) + opCount); op - len(fuzzAPI) {
		case opExit:
			p.endContainer()
		case opTogether:
			p.send(t, p.prepare(t, p.tape.pick(len(fuzzAPI))), p.prepare(t, p.tape.pick(len(fuzzAPI))))
		default:
			p.send(t, p.prepare(t, op))
		}
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

// call is a request, and what became of it.
type call struct {
	method protoreflect.MethodDescriptor
	req    wire
	held   *heldStream
	err    error
}

// prepare makes a request for an RPC: a good one with as many mutations as the tape says, or the tape's bytes as
// they are.
func (p *program) prepare(t *testing.T, index int) *call {
	t.Helper()
	method := fuzzAPI[index]
	variant, mutations := p.tape.next(), p.tape.pick(8)
	if mutations == 7 {
		return &call{method: method, req: p.tape.take(p.tape.pick(64))}
	}
	msg := p.request(method, variant)
	m := &mutator{tape: p.tape, dirs: p.world.dirs, ids: p.ids()}
	for range mutations {
		m.mutate(msg.ProtoReflect())
	}
	req, err := marshal(msg)
	if err != nil {
		t.Fatal(err)
	}
	return &call{method: method, req: req}
}

// send sends calls at the same time, and judges what became of them.
func (p *program) send(t *testing.T, calls ...*call) {
	t.Helper()
	var group sync.WaitGroup
	for _, c := range calls {
		group.Go(func() { c.send(t.Context(), p.world.conn) })
	}
	group.Wait()
	for _, c := range calls {
		p.calls = append(p.calls, fmt.Sprintf("%s %.200q: %.300v", c.method.Name(), []byte(c.req), c.err))
		if c.held != nil {
			p.held = append(p.held, *c.held)
		}
		if c.decodes() {
			p.judge(t, c.method, c.err)
			continue
		}
		// Such a request never reaches the server's code: gRPC's own answers it, and says so.
		if status.Code(c.err) != codes.Internal || !strings.Contains(c.err.Error(), "unmarshal") {
			t.Errorf("%s answers a request that is no message of the API with %v", c.method.Name(), c.err)
		}
	}
}

func (c *call) decodes() bool { return proto.Unmarshal(c.req, newMessage(c.method.Input())) == nil }

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

// send makes the call. What comes back has to be a message of the API.
func (c *call) send(ctx context.Context, conn *grpc.ClientConn) {
	name := fmt.Sprintf("/%s/%s", c.method.Parent().FullName(), c.method.Name())
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	if !c.method.IsStreamingServer() {
		defer cancel()
		var resp wire
		if c.err = conn.Invoke(ctx, name, c.req, &resp, grpc.ForceCodec(wireCodec{})); c.err == nil {
			c.err = proto.Unmarshal(resp, newMessage(c.method.Output()))
		}
		return
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, name, grpc.ForceCodec(wireCodec{}))
	if err == nil {
		err = errors.Join(stream.SendMsg(c.req), stream.CloseSend())
	}
	if err == nil && c.method.Name() == "GetContainerEvents" && c.decodes() {
		c.held = &heldStream{cancel, stream}
		return
	}
	defer cancel()
	if c.err = err; err == nil {
		c.err = drain(stream)
	}
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
