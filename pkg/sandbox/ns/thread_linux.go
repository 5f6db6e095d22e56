package ns

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// onThrowawayThread runs fn on an OS thread of its own, waits for it, and lets the thread die.
// fn may change what belongs to the thread (namespaces, credentials) without ever restoring it:
// a goroutine that ends while locked takes its thread along, and the Go runtime never clones new
// threads from a locked one.
//
// fn never runs on the process's first thread. Go cannot end that one, it would only park it;
// and /proc/<pid>/ns is a view of the first thread, so a pod's namespaces would from then on
// pass for this process's own, and stay alive as long as it does.
func onThrowawayThread(fn func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// Held by this goroutine, the first thread cannot be chosen again.
			defer runtime.UnlockOSThread()
			onThrowawayThread(fn)
			return
		}
		fn()
	}()
	<-done
}
