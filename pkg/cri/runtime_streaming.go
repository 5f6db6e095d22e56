package cri

import (
	"context"
	"fmt"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// Streaming gives out the URLs at which clients are served.
type Streaming interface {
	GetExec(req *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error)
	GetAttach(req *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error)
	GetPortForward(req *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error)
}

func (s *runtimeService) Exec(_ context.Context, req *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	rec, err := s.Containers.Running(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	if err := checkCommand(req.GetCmd()); err != nil {
		return nil, err
	}
	return s.Streaming.GetExec(&runtimeapi.ExecRequest{
		ContainerId: rec.ID,
		Cmd:         req.GetCmd(),
		Tty:         req.GetTty(),
		Stdin:       req.GetStdin(),
		Stdout:      req.GetStdout(),
		Stderr:      req.GetStderr(),
	})
}

// Attach takes the terminal from the container: the client cannot choose.
func (s *runtimeService) Attach(_ context.Context, req *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error) {
	rec, err := s.Containers.Running(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	return s.Streaming.GetAttach(&runtimeapi.AttachRequest{
		ContainerId: rec.ID,
		Stdin:       req.GetStdin(),
		Tty:         rec.Spec.TTY,
		Stdout:      req.GetStdout(),
		Stderr:      req.GetStderr() && !rec.Spec.TTY,
	})
}

func (s *runtimeService) PortForward(_ context.Context, req *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error) {
	rec, err := s.Sandboxes.Get(req.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	if rec.Phase != sandbox.PhaseReady {
		return nil, fmt.Errorf("forward ports of sandbox %s: %w", rec.ID, sandbox.ErrNotReady)
	}
	for _, port := range req.GetPort() {
		if !validPort(port) {
			return nil, invalid("port %d: want 1-65535", port)
		}
	}
	return s.Streaming.GetPortForward(&runtimeapi.PortForwardRequest{PodSandboxId: rec.ID, Port: req.GetPort()})
}
