// Package inside is the part of the self-test that runs in a container: it looks around and tells
// what it sees as JSON. Where the container's image holds userns-shim, Look does so; where it
// holds a busybox, Script does the same in its shell.
//
// It only tells. What is right and what is wrong is judged outside, by package selftest.
package inside
