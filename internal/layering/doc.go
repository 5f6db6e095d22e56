// Package layering holds the tests that keep the house in order: which package may
// import which, where system calls and gRPC codes may appear, and that every
// package says what it is. It is not part of the program, and it judges imports
// only: what code does with them is the linters' concern.
package layering
