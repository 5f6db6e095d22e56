package cri

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"unicode"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/userns-shim/userns-shim/pkg/checkpoint"
	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/mounts"
	"github.com/userns-shim/userns-shim/pkg/network"
	"github.com/userns-shim/userns-shim/pkg/nri"
	"github.com/userns-shim/userns-shim/pkg/ocispec"
	"github.com/userns-shim/userns-shim/pkg/ocispec/cdidev"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
	"github.com/userns-shim/userns-shim/pkg/sandbox/ns"
	"github.com/userns-shim/userns-shim/pkg/stats"
	"github.com/userns-shim/userns-shim/pkg/stream/crilog"
)

// sentinels maps the errors of the managers to the code that kubelet acts on. The first match
// wins.
var sentinels = []struct {
	err  error
	code codes.Code
}{
	{nri.ErrPlugin, codes.FailedPrecondition}, // whatever is in it: the plugin's word, not the client's
	{sandbox.ErrNotFound, codes.NotFound},
	{container.ErrNotFound, codes.NotFound},
	{sandbox.ErrAmbiguous, codes.InvalidArgument},
	{container.ErrAmbiguous, codes.InvalidArgument},
	{sandbox.ErrExists, codes.AlreadyExists},
	{container.ErrExists, codes.AlreadyExists},
	{sandbox.ErrNotReady, codes.FailedPrecondition},
	{sandbox.ErrNoProcess, codes.FailedPrecondition},
	{container.ErrState, codes.FailedPrecondition},
	{sandbox.ErrConflict, codes.FailedPrecondition},
	{sandbox.ErrNoUserNamespaces, codes.FailedPrecondition},
	{sandbox.ErrIDsNotAllowed, codes.FailedPrecondition},
	{sandbox.ErrReservation, codes.FailedPrecondition},
	{sandbox.ErrIDRequest, codes.InvalidArgument},
	{sandbox.ErrUnknownHandler, codes.InvalidArgument},
	{container.ErrInvalid, codes.InvalidArgument},
	{container.ErrUnsupported, codes.FailedPrecondition},
	{checkpoint.ErrInvalid, codes.InvalidArgument},
	{ns.ErrSysctl, codes.InvalidArgument},
	{ns.ErrInvalid, codes.InvalidArgument},
	{ns.ErrNamespaceLimit, codes.ResourceExhausted},
	{ns.ErrGone, codes.FailedPrecondition},
	{mounts.ErrNotIDMappable, codes.InvalidArgument},
	{mounts.ErrUnsupportedMount, codes.FailedPrecondition},
	{stats.ErrGone, codes.NotFound},
	{network.ErrNotReady, codes.FailedPrecondition},
	{network.ErrInvalid, codes.InvalidArgument},
	{crilog.ErrBadPath, codes.InvalidArgument},
	{crilog.ErrNotRegular, codes.FailedPrecondition},
	{crilog.ErrClosed, codes.FailedPrecondition},
	{cdidev.ErrNotFound, codes.NotFound},
	{ocispec.ErrInvalid, codes.InvalidArgument},
	{ocispec.ErrUserNotFound, codes.InvalidArgument},
	{ocispec.ErrGroupNotFound, codes.InvalidArgument},
	{ocispec.ErrIDNotMapped, codes.InvalidArgument},
	{ocispec.ErrUnsupported, codes.FailedPrecondition},
	{idpool.ErrInvalid, codes.InvalidArgument},
	{idpool.ErrPodHolds, codes.FailedPrecondition},
	{idpool.ErrExhausted, codes.ResourceExhausted},
	{idpool.ErrFragmented, codes.ResourceExhausted},
	{context.DeadlineExceeded, codes.DeadlineExceeded},
	{context.Canceled, codes.Canceled},
	{errdefs.ErrUnavailable, codes.Unavailable},
	// A full disk or quota, below the state database as anywhere else.
	{syscall.ENOSPC, codes.ResourceExhausted},
	{syscall.EDQUOT, codes.ResourceExhausted},
	{container.ErrCheckpoint, codes.FailedPrecondition},
	{container.ErrStart, codes.FailedPrecondition},
	{container.ErrUpdate, codes.FailedPrecondition},
	{network.ErrPlugin, codes.Unavailable},
}

// grpcError gives err the code that its kind has; an error that has one keeps it.
func grpcError(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	for _, s := range sentinels {
		if errors.Is(err, s.err) {
			return status.Error(s.code, err.Error())
		}
	}
	return errgrpc.ToGRPC(err)
}

// maxText bounds the text of an error, in bytes: requests of 16 MiB are quoted in some, and all end
// in logs and in events of pods.
const maxText = 8 << 10

// shorten cuts the middle out of a text that is too long: an error says at its beginning what failed, and
// why at its end.
func shorten(err error) error {
	st := status.Convert(err)
	text := st.Message()
	if len(text) <= maxText {
		return err
	}
	short := st.Proto()
	short.Message = strings.ToValidUTF8(text[:maxText/2], "") + " [...] " + strings.ToValidUTF8(text[len(text)-maxText/4:], "")
	return status.FromProto(short).Err()
}

func invalid(format string, args ...any) error {
	return status.Errorf(codes.InvalidArgument, format, args...)
}

// maxName bounds names that become part of keys, labels and log lines.
const maxName = 253

// checkName accepts what Kubernetes lets names be, and what crictl's users make of them, but
// nothing that could be mistaken for a path, a separator or a line of its own. The separators are those of a path
// and of CNI's arguments, in which a pod with such a name could be neither attached nor removed.
func checkName(field, value string) error {
	switch {
	case value == "":
		return invalid("%s is empty", field)
	case len(value) > maxName:
		return invalid("%s has %d characters: want at most %d", field, len(value), maxName)
	case strings.ContainsAny(value, "/;="), !printable(value):
		return invalid("%s is %q: want printable characters and none of / ; =", field, value)
	}
	return nil
}

// checkRequestID holds that the sandbox or container that a request is about is named. All RPCs
// with an id pass here, before a manager quotes it in an error.
func checkRequestID(req any) error {
	if r, ok := req.(interface{ GetPodSandboxId() string }); ok {
		return checkID("pod_sandbox_id", r.GetPodSandboxId())
	}
	if r, ok := req.(interface{ GetContainerId() string }); ok {
		return checkID("container_id", r.GetContainerId())
	}
	return nil
}

// checkID bounds ids and prefixes of ids; whether there is such an object is for the managers to say.
func checkID(field, id string) error {
	switch {
	case id == "":
		return invalid("%s is empty", field)
	case len(id) > maxName:
		return invalid("%s has %d characters: want at most %d", field, len(id), maxName)
	}
	return nil
}

func printable(s string) bool {
	for _, r := range s {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return false
		}
	}
	return true
}
