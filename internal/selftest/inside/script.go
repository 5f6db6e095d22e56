package inside

import (
	_ "embed"
	"strconv"
)

//go:embed script.sh
var script string

// waiting ends at once on SIGTERM, which a first process would otherwise not even notice.
const waiting = `trap "exit 0" TERM; while :; do sleep 3600 & wait $!; done`

// Program is how the program of an image is called: to wait, and to tell the facts.
type Program struct {
	Wait func(token string) []string // the token ends up as an argument of the process
	Look func(Request) []string
	// Witness is a file of the image.
	Witness string
}

// Shell does it all with nothing but sh and the tools of a busybox.
func Shell() Program {
	return Program{
		Wait: func(token string) []string { return []string{"/bin/sh", "-c", waiting, token} },
		Look: func(req Request) []string {
			return []string{"/bin/sh", "-c", script, "sh", req.File, req.Witness, strconv.Itoa(req.PID)}
		},
		Witness: "/bin/sh",
	}
}

// The arguments by which Self calls userns-shim; its hidden subcommand takes them.
const (
	Command     = "selftest-inside"
	CommandWait = "wait"
	CommandLook = "look"
)

// Self is userns-shim itself, found at path.
func Self(path string) Program {
	return Program{
		Wait: func(token string) []string { return []string{path, Command, CommandWait, token} },
		Look: func(req Request) []string {
			return []string{path, Command, CommandLook, req.File, req.Witness, strconv.Itoa(req.PID)}
		},
		Witness: path,
	}
}
