package cri

import (
	"context"
	"path"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/klog/v2"
)

// maxMessage is what kubelet allows a CRI message to have, in bytes.
const maxMessage = 16 << 20

// verbosity of the line that each call logs: those that only read are polled every second.
const (
	levelChange klog.Level = 2
	levelRead   klog.Level = 5
)

var readOnly = map[string]bool{
	"Version": true, "Status": true, "RuntimeConfig": true,
	"PodSandboxStatus": true, "ListPodSandbox": true,
	"ContainerStatus": true, "ListContainers": true, "ExecSync": true,
	"ContainerStats": true, "ListContainerStats": true, "PodSandboxStats": true, "ListPodSandboxStats": true,
	"ListPodSandboxMetrics": true, "ListMetricDescriptors": true,
	"ListImages": true, "ImageStatus": true, "ImageFsInfo": true,
}

// Observe is told of each call that ended: its method without the service, its code and how
// long it took.
type Observe func(method string, code codes.Code, took time.Duration)

// ServerOptions are the options that a gRPC server for CRI needs: message sizes, and
// interceptors that log, observe, turn errors into codes and survive a panic.
func ServerOptions(logger klog.Logger, observe Observe) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxSendMsgSize(maxMessage),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
			err = run(ctx, logger, observe, info.FullMethod, func(ctx context.Context) error {
				resp, err = next(ctx, req)
				return err
			})
			return resp, err
		}),
		grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			return run(stream.Context(), logger, observe, info.FullMethod, func(context.Context) error {
				return next(srv, stream)
			})
		}),
	}
}

func run(ctx context.Context, logger klog.Logger, observe Observe, fullMethod string, call func(context.Context) error) error {
	method, start := path.Base(fullMethod), time.Now()
	logger = logger.WithValues("method", method)
	err := grpcError(guard(klog.NewContext(ctx, logger), call))
	took := time.Since(start)
	observe(method, status.Code(err), took)
	level := levelChange
	if readOnly[method] {
		level = levelRead
	}
	switch status.Code(err) {
	case codes.OK:
		logger.V(int(level)).Info("CRI call", "took", took)
	case codes.Internal, codes.Unknown:
		logger.Error(err, "CRI call", "took", took)
	default:
		logger.V(int(levelChange)).Info("CRI call", "took", took, "code", status.Code(err), "err", err)
	}
	return err
}

// guard turns a panic into an error of its one call: the pods of the node outlive a bug.
func guard(ctx context.Context, call func(context.Context) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			klog.FromContext(ctx).Error(nil, "Panic in a CRI call", "panic", p, "stack", string(debug.Stack()))
			err = status.Errorf(codes.Internal, "internal error: %v", p)
		}
	}()
	return call(ctx)
}
