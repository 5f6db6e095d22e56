package main

import (
	"errors"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// sendCredentials connects to a unix socket and sends one byte with its own pid and the ids that it is
// told to claim: sendcred PATH UID GID.
func sendCredentials(args []string) (result, error) {
	if len(args) != 3 {
		return result{}, usageError("wants a path, a uid and a gid")
	}
	claimed, err := numbers(args[1:])
	if err != nil {
		return result{}, err
	}
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: args[0], Net: "unix"})
	if err != nil {
		return result{}, err
	}
	defer conn.Close()
	cred := &unix.Ucred{Pid: int32(os.Getpid()), Uid: uint32(claimed[0]), Gid: uint32(claimed[1])}
	_, _, err = conn.WriteMsgUnix([]byte{0}, unix.UnixCredentials(cred), nil)
	return result{}, err
}

// receiveCredentials listens on a unix socket that everybody may connect to, says so with a file named
// PATH.ready, and reports the ids that came with the first message.
func receiveCredentials(path string) (result, error) {
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return result{}, err
	}
	defer listener.Close()
	if err := passCredentials(listener); err != nil {
		return result{}, err
	}
	if err := errors.Join(os.Chmod(path, 0o777), os.WriteFile(path+".ready", nil, 0o644)); err != nil {
		return result{}, err
	}
	conn, err := listener.AcceptUnix()
	if err != nil {
		return result{}, err
	}
	defer conn.Close()
	return readCredentials(conn)
}

// passCredentials sets SO_PASSCRED on the listener; what it accepts inherits that.
func passCredentials(listener *net.UnixListener) error {
	raw, err := listener.SyscallConn()
	if err != nil {
		return err
	}
	var setErr error
	err = raw.Control(func(fd uintptr) {
		setErr = os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1))
	})
	return errors.Join(err, setErr)
}

func readCredentials(conn *net.UnixConn) (result, error) {
	control := make([]byte, unix.CmsgSpace(unix.SizeofUcred))
	_, n, _, _, err := conn.ReadMsgUnix(make([]byte, 1), control)
	if err != nil {
		return result{}, err
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil {
		return result{}, err
	}
	if len(messages) != 1 {
		return result{}, errors.New("message carries no credentials")
	}
	cred, err := unix.ParseUnixCredentials(&messages[0])
	if err != nil {
		return result{}, err
	}
	return result{UID: int(cred.Uid), GID: int(cred.Gid)}, nil
}
