// Package version holds the version of this build. It does not know the versions
// of containerd, runc or CRI that it meets at run time.
package version

// Version is set by the linker (see the Makefile); a plain `go build` leaves it
// as it stands here.
var Version = "v0.0.0-devel"
