package main

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// sendPIDFD connects to a unix socket and passes a pidfd of a process: sendpidfd PATH PID.
func sendPIDFD(args []string) (result, error) {
	if len(args) != 2 {
		return result{}, usageError("wants a path and a pid")
	}
	pid, err := numbers(args[1:])
	if err != nil {
		return result{}, err
	}
	fd, err := unix.PidfdOpen(pid[0], 0)
	if err != nil {
		return result{}, os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(fd)
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: args[0], Net: "unix"})
	if err != nil {
		return result{}, err
	}
	defer conn.Close()
	_, _, err = conn.WriteMsgUnix([]byte{0}, unix.UnixRights(fd), nil)
	return result{}, err
}

// signalPIDFD listens on a unix socket, says so with a file named PATH.ready, and sends signal 0, which
// checks no more than the permission, to the process whose pidfd comes.
func signalPIDFD(path string) (result, error) {
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return result{}, err
	}
	defer listener.Close()
	if err := errors.Join(os.Chmod(path, 0o777), os.WriteFile(path+".ready", nil, 0o644)); err != nil {
		return result{}, err
	}
	conn, err := listener.AcceptUnix()
	if err != nil {
		return result{}, err
	}
	defer conn.Close()
	fd, err := receiveFD(conn)
	if err != nil {
		return result{}, err
	}
	defer unix.Close(fd)
	return result{}, os.NewSyscallError("pidfd_send_signal", unix.PidfdSendSignal(fd, 0, nil, 0))
}

func receiveFD(conn *net.UnixConn) (int, error) {
	control := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := conn.ReadMsgUnix(make([]byte, 1), control)
	if err != nil {
		return -1, err
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil {
		return -1, err
	}
	if len(messages) != 1 {
		return -1, errors.New("message carries no file descriptor")
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return -1, err
	}
	if len(fds) != 1 {
		return -1, fmt.Errorf("message carries %d file descriptors", len(fds))
	}
	return fds[0], nil
}
