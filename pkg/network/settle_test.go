package network

import (
	"os/exec"
	"testing"
	"time"
)

func TestSettleWaitsForPlugins(t *testing.T) {
	const ours, other = "5e771e0000000001", "5e771e0000000002"
	for id, want := range map[string]time.Duration{ours: 300 * time.Millisecond, other: 0} {
		plugin := exec.Command("sleep", "0.4")
		plugin.Env = append(plugin.Environ(), "CNI_COMMAND=ADD", "CNI_CONTAINERID="+id)
		if err := plugin.Start(); err != nil {
			t.Fatal(err)
		}
		go func() { _ = plugin.Wait() }() // a zombie has no environment, but should not stay either
		time.Sleep(50 * time.Millisecond) // until it has its own environment
		began := time.Now()
		if err := Settle(t.Context(), []string{"another", ours}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < want || want == 0 && took > 300*time.Millisecond {
			t.Errorf("a plugin of %s was waited for %s, want at least %s", id, took, want)
		}
		if err := Settle(t.Context(), nil); err != nil {
			t.Error(err)
		}
	}
}
