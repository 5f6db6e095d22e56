// Package e2e tests userns-shim as a whole: the real daemon, a real containerd and runc, real namespaces, and
// a CRI client in kubelet's place. Each test's name says the line of the requirements that it holds.
//
// The tests need root and what `make build tools` makes. Most share one node, which they leave as they found it; those
// that kill or starve a daemon have nodes of their own. The package contains tests only.
package e2e
