// Package labimage builds small container images on the spot and serves them from a registry on
// loopback, so that the end-to-end tests, `userns-shim selftest` and `make demo` need no internet.
//
// An image is described as plain data (Spec) and built without touching the disk; the same Spec and
// the same box give the same digest every time. The programs inside come from one static binary, the
// box: busybox where Debian's busybox-static is installed, else a small Go program built on the spot.
//
// The package knows nothing of containerd, CRI or user namespaces, it speaks plain HTTP only, and it
// is no registry for production: everything is held in memory.
package labimage
