// Package selftest checks, through the CRI socket of any runtime, that a node gives pods with
// hostUsers: false user namespaces of their own. It runs two pods, compares what they see with
// what the host sees, and removes all that it made.
//
// Run gathers what there is to see and changes the node; judge, which is pure, turns it into
// checks. The report as JSON, whose fields and names of checks are kept from release to release:
//
//	{
//	  "endpoint": "unix:///run/userns-shim/userns-shim.sock",
//	  "runtime":  "userns-shim",       name that the runtime gives itself, empty if unreachable
//	  "version":  "v0.1.0",            its version
//	  "checks": [{
//	    "name":    "pod1-uid-map",     see Names
//	    "ok":      true,               false when it failed and when it was skipped
//	    "skipped": false,              it could not be made; detail says why
//	    "got":     "0 2113798144 65536",
//	    "want":    "0 R 65536",
//	    "detail":  ""                  what a failure means and what can be done
//	  }],
//	  "ok": true                       no check has failed
//	}
//
// The package measures nothing, it knows no runtime's own API beside CRI, and it does not test
// what has nothing to do with user namespaces.
package selftest
