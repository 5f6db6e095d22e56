package main

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

func onProcess(f func(pid int) error) func([]string) (result, error) {
	return oneArg(func(arg string) (result, error) {
		pid, err := numbers([]string{arg})
		if err != nil {
			return result{}, err
		}
		return result{}, f(pid[0])
	})
}

// signalProcess sends signal 0, which checks no more than the permission.
func signalProcess(pid int) error { return os.NewSyscallError("kill", unix.Kill(pid, 0)) }

// seize becomes the process's tracer; it is let go when the probe ends.
func seize(pid int) error {
	runtime.LockOSThread()
	return os.NewSyscallError("ptrace", unix.PtraceSeize(pid))
}

// readMemory reads at address 0, where nothing is: who may read memory gets EFAULT, others EPERM.
func readMemory(pid int) error {
	buf := make([]byte, 8)
	local := []unix.Iovec{{Base: &buf[0]}}
	local[0].SetLen(len(buf))
	remote := []unix.RemoteIovec{{Base: 0, Len: len(buf)}}
	_, err := unix.ProcessVMReadv(pid, local, remote, 0)
	return os.NewSyscallError("process_vm_readv", err)
}
