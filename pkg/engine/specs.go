package engine

import (
	"context"
	"fmt"

	"github.com/containerd/typeurl/v2"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// RecordSpec returns the specification that a record was created with. A missing record is an
// error that wraps errdefs.ErrNotFound.
func (e *Engine) RecordSpec(ctx context.Context, id string) (*specs.Spec, error) {
	rec, err := e.client.ContainerService().Get(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("read container %s: %w", id, err)
	}
	var spec specs.Spec
	if err := typeurl.UnmarshalTo(rec.Spec, &spec); err != nil {
		return nil, fmt.Errorf("unpack spec of container %s: %w", id, err)
	}
	return &spec, nil
}
