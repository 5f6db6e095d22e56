// Package e2ekubelet tests userns-shim under a real kubelet, which runs static pods from a directory and has no API server. Each
// test's name says the line of the requirements that it holds.
//
// The tests need root and what `make build tools` and `make kubelet` make. They share one node. Those that do things to its daemons, or
// measure, run one after the other and first; the others then run side by side. What kubelet itself does with its answers
// (scheduling, eviction) is not tested here. The package contains tests only.
package e2ekubelet
