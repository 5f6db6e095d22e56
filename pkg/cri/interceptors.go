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
	"StreamContainerStats": true, "StreamPodSandboxStats": true, "StreamPodSandboxMetrics": true,
	"ListImages": true, "ImageStatus": true, "ImageFsInfo": true,
}

// Observe is told of each call that ended: its method without the service, its code and how
// long it took.
type Observe func(method string, code codes.Code, took time.Duration)

// Interceptors stand around every call.
type Interceptors struct {
	Logger  klog.Logger
	Observe Observe
	// Ready returns an error while calls that depend on recovered state cannot be served yet.
	Ready func() error
}

// alwaysServed are the calls that tell of the node, not of its pods.
var alwaysServed = map[string]bool{"Version": true, "Status": true, "RuntimeConfig": true, "UpdateRuntimeConfig": true}

// ServerOptions are the options that a gRPC server for CRI needs: message sizes, and
// interceptors that log, observe, turn errors into codes and survive a panic.
func (i Interceptors) ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxSendMsgSize(maxMessage),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
			err = i.run(ctx, info.FullMethod, func(ctx context.Context) error {
				if err := checkRequestID(req); err != nil {
					return err
				}
				resp, err = next(ctx, req)
				return err
			})
			return resp, err
		}),
		grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			return i.run(stream.Context(), info.FullMethod, func(ctx context.Context) error {
				return next(srv, serverStream{stream, ctx})
			})
		}),
	}
}

// serverStream is a stream whose handler sees the context of run, which has its logger. gRPC knows
// no other way to give a stream's handler one.
type serverStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s serverStream) Context() context.Context { return s.ctx }

func (i Interceptors) run(ctx context.Context, fullMethod string, call func(context.Context) error) error {
	method, start := path.Base(fullMethod), time.Now()
	logger := i.Logger.WithValues("method", method)
	err := i.admit(method)
	if err == nil {
		err = shorten(grpcError(guard(klog.NewContext(ctx, logger), call)))
	}
	took := time.Since(start)
	i.Observe(method, status.Code(err), took)
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

func (i Interceptors) admit(method string) error {
	if alwaysServed[method] {
		return nil
	}
	if err := i.Ready(); err != nil {
		return status.Error(codes.Unavailable, err.Error())
	}
	return nil
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
