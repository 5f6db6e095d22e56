// Package doctor looks over a node for what keeps pods with user namespaces from running well, and says what to do about it.
//
// Examine reads files below a root directory and asks the rest through ports, so that each finding can be provoked. It works without a
// daemon and without containerd, for then it is needed most; what cannot be known then is said to be unknown. It changes
// nothing, starts no program and runs no pod: that is what package selftest does.
package doctor
