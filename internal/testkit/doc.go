// Package testkit holds what tests of several packages ask of the machine. A missing
// privilege is a reason to skip; a missing program on a machine that has the privilege
// is a failure, so that no test is lost without a word. It starts nothing
// and cleans up nothing: that stays with the test.
package testkit
