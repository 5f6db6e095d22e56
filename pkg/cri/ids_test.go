package cri

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
)

// TestEveryRPCBoundsItsID asks each RPC of the API whose request names a sandbox or a container, with ids
// that name none. The server has no managers: a call that reached one would end with Internal.
func TestEveryRPCBoundsItsID(t *testing.T) {
	conn := serveWithoutManagers(t)
	asked := 0
	services := (&runtimeapi.VersionRequest{}).ProtoReflect().Descriptor().ParentFile().Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			method := methods.Get(j)
			field := idField(method)
			if field == nil || method.IsStreamingServer() {
				continue
			}
			asked++
			for _, id := range []string{"", strings.Repeat("a", maxName+1), strings.Repeat("a", 1<<20)} {
				err := invoke(t, conn, method, field, id)
				if status.Code(err) != codes.InvalidArgument || len(err.Error()) > 200 || !strings.Contains(err.Error(), string(field.Name())) {
					t.Errorf("%s with an id of %d bytes: %.300v, want InvalidArgument and few words", method.Name(), len(id), err)
				}
			}
		}
	}
	if asked < 18 {
		t.Errorf("%d RPCs have an id, want at least 18", asked)
	}
}

func TestCheckRequestIDAccepts(t *testing.T) {
	for _, req := range []any{
		&runtimeapi.StopContainerRequest{ContainerId: strings.Repeat("a", maxName)},
		&runtimeapi.StopPodSandboxRequest{PodSandboxId: "0"},
		&runtimeapi.ListContainersRequest{},
		&runtimeapi.VersionRequest{},
	} {
		if err := checkRequestID(req); err != nil {
			t.Errorf("%T: %v", req, err)
		}
	}
}

// idField is what a request is about, nil for one that names no sandbox or container.
func idField(method protoreflect.MethodDescriptor) protoreflect.FieldDescriptor {
	for _, name := range []protoreflect.Name{"pod_sandbox_id", "container_id"} {
		if field := method.Input().Fields().ByName(name); field != nil {
			return field
		}
	}
	return nil
}

func invoke(t *testing.T, conn *grpc.ClientConn, method protoreflect.MethodDescriptor, field protoreflect.FieldDescriptor, id string) error {
	t.Helper()
	req := dynamicpb.NewMessage(method.Input())
	req.Set(field, protoreflect.ValueOfString(id))
	name := "/" + string(method.Parent().FullName()) + "/" + string(method.Name())
	return conn.Invoke(t.Context(), name, req, dynamicpb.NewMessage(method.Output()))
}

func serveWithoutManagers(t *testing.T) *grpc.ClientConn {
	t.Helper()
	around := Interceptors{
		Logger:  klog.Background(),
		Observe: func(string, codes.Code, time.Duration) {},
		Ready:   func() error { return nil },
	}
	server := grpc.NewServer(around.ServerOptions()...)
	Register(server, Options{})
	return serveOnSocket(t, server)
}
