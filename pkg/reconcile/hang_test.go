package reconcile

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/userns-shim/userns-shim/pkg/idpool"
)

// hungEngine answers when the call's context ends.
type hungEngine struct{}

func (hungEngine) Layers(ctx context.Context) (map[string]idpool.Range, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (hungEngine) Containers(ctx context.Context) ([]string, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// A look that containerd holds up ends after its time, and who waits for it goes when his own is over.
func TestLookThatHangs(t *testing.T) {
	w := newWorld(t)
	w.opts.Engine = hungEngine{}
	synctest.Test(t, func(t *testing.T) {
		r := New(w.opts)
		ended := make(chan struct{})
		began := time.Now()
		go func() {
			defer close(ended)
			r.again(t.Context())
		}()
		synctest.Wait()
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.Once(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a second look: %v", err)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("the second look waited %v", took)
		}
		<-ended
		if took := time.Since(began); took != Timeout {
			t.Errorf("the first look took %v", took)
		}
	})
}
