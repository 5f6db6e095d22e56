package cri

import (
	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/image"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
	"github.com/userns-shim/userns-shim/pkg/stats"
	"github.com/userns-shim/userns-shim/pkg/stats/cadvisor"
)

// Options are the parts that the services drive; all are required.
type Options struct {
	Sandboxes  *sandbox.Manager
	Containers *container.Manager
	Images     *image.Manager
	// Node answers what Status and RuntimeConfig report.
	Node      Node
	Streaming Streaming
	Stats     *stats.Collector
	// Events are told of every change; the managers' Notify is its Publish.
	Events *Events
	// PluginsReady, where it is set, is nil when NRI plugins can connect.
	PluginsReady func() error
	// Capacity tells what is left of the id pool, by segment.
	Capacity func() []Capacity
	// Version is that of this program.
	Version string
}

// Register adds both services to a gRPC server.
func Register(s *grpc.Server, opts Options) {
	runtimeapi.RegisterRuntimeServiceServer(s, &runtimeService{Options: opts, metrics: cadvisor.New()})
	runtimeapi.RegisterImageServiceServer(s, &imageService{images: opts.Images})
}

// runtimeService is CRI's RuntimeService. The embedded server answers the RPCs that are not
// built yet with Unimplemented.
type runtimeService struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	Options
	metrics *cadvisor.Set
}
