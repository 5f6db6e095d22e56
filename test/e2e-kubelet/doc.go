// Package e2ekubelet tests userns-shim under a real kubelet. Each test's name says the line of the requirements that it holds.
//
// The tests need root and what `make build tools kubelet` makes. They share one node, whose kubelet runs static pods from a
// directory, without an API server; for what static pods cannot have it is run with a small one out of client-go's object
// tracker. Tests that do things to the daemons, or measure, run one after the other and first; the others then run side by side. What
// is left at the end, of all of them together, fails the run. The package contains tests only.
package e2ekubelet
