package nodetest

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/userns-shim/userns-shim/internal/labnode"
)

// Main runs the tests of a package that starts nodes and returns its exit status. First it removes what nodes of an earlier run have left,
// and last it calls end, unless that is nil, whose error fails the run. Without root it does neither: every test says that it needs root.
func Main(m *testing.M, end func(context.Context) error) int {
	if os.Geteuid() != 0 {
		return m.Run()
	}
	ctx := context.Background()
	if err := labnode.Sweep(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "FAIL: remove nodes of an earlier run:", err)
		return 1
	}
	code := m.Run()
	if end == nil {
		return code
	}
	if err := end(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "FAIL: at the end of all tests:", err)
		return 1
	}
	return code
}
