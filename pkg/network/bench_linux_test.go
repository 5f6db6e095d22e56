package network

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func BenchmarkSetupAndTeardown(b *testing.B) {
	n := newNode(b, Options{})
	n.configure(b, "10-pods.conflist", bridgeConf)
	warmUp(b, n)
	for b.Loop() {
		b.StopTimer()
		pod := newPod(b)
		b.StartTimer()
		if _, err := n.Setup(b.Context(), pod); err != nil {
			b.Fatal(err)
		}
		if err := n.Teardown(b.Context(), pod); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLoopbackUp(b *testing.B) {
	pod := newPod(b)
	for b.Loop() {
		if err := loopbackUp(pod.NetNSPath); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkConfiguration(b *testing.B) {
	n := newNode(b, Options{})
	n.configure(b, "10-pods.conflist", bridgeConf)
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(n.confDir, "10-pods.conflist"), old, old); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := n.configuration(); err != nil {
			b.Fatal(err)
		}
	}
}
