// Command probe is run by end-to-end tests inside containers, built statically. It tries one thing that
// busybox has no applet for, and prints what came of it as one line of JSON. It exits with 0 whether or not
// the kernel let it: that is for the test to judge; another exit code means that it was called wrongly.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// result is what every subcommand prints. Package e2e has the same type for reading it.
type result struct {
	// Errno is the name of the error, such as "EPERM", and empty when all went well.
	Errno string `json:"errno,omitempty"`
	// Detail is the whole error, for messages.
	Detail string `json:"detail,omitempty"`
	// Count is a number of things made before Errno came.
	Count int `json:"count,omitempty"`
	// UID, GID and Groups are ids as the caller sees them.
	UID    int   `json:"uid"`
	GID    int   `json:"gid"`
	Groups []int `json:"groups,omitempty"`
	// Text is whatever else there is to tell.
	Text string `json:"text,omitempty"`
}

// commands are the subcommands; each gets the arguments after its name.
var commands = map[string]func(args []string) (result, error){
	"settime":      noArgs(setTime),
	"serve":        serve,
	"initmodule":   noArgs(initModule),
	"dmesg":        noArgs(readKernelLog),
	"mknod":        oneArg(makeDevice),
	"sethostname":  oneArg(setHostname),
	"mounttmpfs":   oneArg(mountTmpfs),
	"remount":      oneArg(remountWritable),
	"setattr":      oneArg(setattrWritable),
	"rebind":       oneArg(rebindWritable),
	"unmount":      oneArg(unmount),
	"linkadd":      oneArg(addLink),
	"inotify":      oneArg(fillInotify),
	"nested":       noArgs(nestedInside),
	"nestedbeyond": noArgs(nestedBeyond),
	"setgroups":    setGroups,
	"ids":          noArgs(ids),
	"sendcred":     sendCredentials,
	"recvcred":     oneArg(receiveCredentials),
	"signal":       onProcess(signalProcess),
	"seize":        onProcess(seize),
	"vmread":       onProcess(readMemory),
	"sendpidfd":    sendPIDFD,
	"signalpidfd":  oneArg(signalPIDFD),
}

func main() {
	if len(os.Args) < 2 {
		usage("no subcommand")
	}
	command, ok := commands[os.Args[1]]
	if !ok {
		usage("no subcommand " + os.Args[1])
	}
	res, err := command(os.Args[2:])
	var wrong usageError
	if errors.As(err, &wrong) {
		usage(wrong.Error())
	}
	if err != nil {
		res.Detail = err.Error()
		res.Errno = errnoName(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(res); err != nil {
		usage(err.Error())
	}
}

// usageError is the caller's mistake and no finding.
type usageError string

func (e usageError) Error() string { return string(e) }

func usage(problem string) {
	fmt.Fprintln(os.Stderr, "probe:", problem)
	os.Exit(2)
}

func errnoName(err error) string {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return unix.ErrnoName(errno)
	}
	return "OTHER"
}

func noArgs(f func() (result, error)) func([]string) (result, error) {
	return func(args []string) (result, error) {
		if len(args) != 0 {
			return result{}, usageError("takes no argument")
		}
		return f()
	}
}

func oneArg(f func(string) (result, error)) func([]string) (result, error) {
	return func(args []string) (result, error) {
		if len(args) != 1 {
			return result{}, usageError("takes one argument")
		}
		return f(args[0])
	}
}

func numbers(args []string) ([]int, error) {
	var list []int
	for _, arg := range args {
		n, err := strconv.Atoi(arg)
		if err != nil {
			return nil, usageError(err.Error())
		}
		list = append(list, n)
	}
	return list, nil
}
