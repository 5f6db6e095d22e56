package container

import (
	"slices"
	"strings"

	"github.com/moby/sys/signal"
)

// defaultStopSignal is for images that name none, or none that there is.
const defaultStopSignal = "SIGTERM"

// stopSignal chooses the client's, the image's or the default. An image may spell it "SIGUSR1", "usr1" or "10", or as
// nothing that is a signal: a container that cannot be asked to stop would be one that cannot be stopped.
func stopSignal(client, image string) string {
	for _, name := range []string{client, image} {
		if name = signalName(name); name != "" {
			return name
		}
	}
	return defaultStopSignal
}

// signalName returns the name as CRI has it, such as SIGRTMIN+3, and "" where there is no such signal.
func signalName(text string) string {
	name := strings.TrimPrefix(strings.ToUpper(text), "SIG")
	if _, ok := signal.SignalMap[name]; ok {
		return "SIG" + name
	}
	number, err := signal.ParseSignal(text)
	if err != nil {
		return ""
	}
	var names []string // several have the same number, such as ABRT and IOT
	for name, other := range signal.SignalMap {
		if other == number {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return "SIG" + slices.Min(names)
}
