package network

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// startPlugin starts a program with the environment of a plugin, and returns what says whether it runs.
func startPlugin(t *testing.T, id, seconds string) (runs func() bool) {
	t.Helper()
	plugin := exec.Command("sleep", seconds)
	plugin.Env = append(plugin.Environ(), "CNI_COMMAND=ADD", "CNI_CONTAINERID="+id)
	if err := plugin.Start(); err != nil { // returns when the program has its environment
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = plugin.Process.Kill(), plugin.Wait() }) // it may have ended
	return func() bool {
		environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", plugin.Process.Pid))
		return err == nil && len(environ) > 0 // a zombie has none
	}
}

func TestSettleWaitsForPlugins(t *testing.T) {
	const ours, other = "5e771e0000000001", "5e771e0000000002"
	otherRuns := startPlugin(t, other, "100")
	if err := Settle(t.Context(), nil); err != nil {
		t.Error(err)
	}
	oursRuns := startPlugin(t, ours, "0.4")
	if err := Settle(t.Context(), []string{"another", ours}); err != nil {
		t.Fatal(err)
	}
	if oursRuns() {
		t.Error("a plugin of the pod was not waited for")
	}
	if !otherRuns() {
		t.Error("a plugin of another pod was waited for")
	}
}
