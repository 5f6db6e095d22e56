package main

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// setTime sets the clock to what it is, give or take the moment in between.
func setTime() (result, error) {
	now := unix.NsecToTimespec(time.Now().UnixNano())
	return result{}, os.NewSyscallError("clock_settime", unix.ClockSettime(unix.CLOCK_REALTIME, &now))
}

// initModule loads what is no module: a privileged caller gets ENOEXEC, others EPERM.
func initModule() (result, error) {
	return result{}, os.NewSyscallError("init_module", unix.InitModule([]byte("no module"), ""))
}

// readKernelLog asks syslog(2) for the whole log (SYSLOG_ACTION_READ_ALL).
func readKernelLog() (result, error) {
	const readAll = 3
	n, err := unix.Klogctl(readAll, make([]byte, 4096))
	if err != nil {
		return result{}, os.NewSyscallError("syslog", err)
	}
	return result{Count: n}, nil
}

// makeDevice makes a device node like /dev/null.
func makeDevice(path string) (result, error) {
	err := unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3)))
	return result{}, os.NewSyscallError("mknod", err)
}

func setHostname(name string) (result, error) {
	if err := unix.Sethostname([]byte(name)); err != nil {
		return result{}, os.NewSyscallError("sethostname", err)
	}
	now, err := os.Hostname()
	return result{Text: now}, err
}
