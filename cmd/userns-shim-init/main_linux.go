// Command userns-shim-init is process 1 of a PID namespace that the containers of a pod share.
// It leaves no zombies, exits with 0 on SIGTERM and SIGINT, and does nothing else: it starts no
// program, reads and writes nothing, and takes no arguments.
//
// Process ids up to 31 are left to its threads and to what runs before it. Which of these its threads get is by
// chance: containers that began among them could not be restored from a checkpoint into another pod.
//
// One runs in each such pod, so what counts is its memory. Three decisions follow:
//
//   - The kernel reaps. With SIGCHLD ignored it discards children that end, those that it gave to
//     process 1 included (signal(7), wait(2)), so there is no loop of wait4 calls to be woken for,
//     and no moment between finding no child and going to sleep in which one could be missed.
//   - Handlers are two instructions of assembly in place of the runtime's (leave_*.s): package
//     os/signal brings goroutines, and with them threads and heap.
//   - Nothing is allocated after the start. Who runs it sets GOGC=off and GOMAXPROCS=1 in its
//     environment, the only place from which the runtime takes both before it starts threads.
package main

import (
	"syscall"
	"unsafe"
)

// sigaction is the kernel's, on amd64 and arm64 alike.
type sigaction struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

// Handlers and flags of rt_sigaction(2).
const (
	sigDefault = 0
	sigIgnore  = 1
	// amd64 refuses a handler without a restorer; this one never returns.
	saRestorer = 0x04000000
	// A goroutine's stack can be too small for the frame of a signal.
	saOnStack  = 0x08000000
	signalSize = 8 // bytes of a signal mask
	lastSignal = 64
)

// leavePC is the address of a handler that ends the process with exit code 0.
func leavePC() uintptr

func main() {
	leave := sigaction{handler: leavePC(), flags: saRestorer | saOnStack, restorer: leavePC()}
	setAction(syscall.SIGTERM, leave)
	setAction(syscall.SIGINT, leave)
	setAction(syscall.SIGCHLD, sigaction{handler: sigIgnore})
	for sig := syscall.Signal(1); sig <= lastSignal; sig++ {
		switch sig {
		case syscall.SIGTERM, syscall.SIGINT, syscall.SIGCHLD:
		default:
			// Process 1 is immune to signals without a handler. The runtime installs handlers for
			// nearly all: SIGQUIT would end it with a stack trace.
			setAction(sig, sigaction{handler: sigDefault})
		}
	}
	passProcessIDs()
	for {
		// Waits for a signal.
		syscall.Syscall6(syscall.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}
}

// setAction changes what a signal does. SIGKILL and SIGSTOP cannot be changed, which is fine.
func setAction(sig syscall.Signal, a sigaction) {
	syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&a)), 0, signalSize, 0, 0)
}

// lastLow is the last process id that no container gets.
const lastLow = 31

// passProcessIDs uses ids up until lastLow, one child at a time, each of which ends at once. It takes 2 ms. Where the
// kernel allows no child it lets be.
func passProcessIDs() {
	for {
		pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD)|syscall.CLONE_VFORK, 0, 0, 0, 0, 0)
		if pid == 0 && errno == 0 {
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
		}
		if errno != 0 || pid >= lastLow {
			return
		}
	}
}
