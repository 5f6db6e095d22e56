// Package nodetest ties lab nodes (package labnode) to testing.TB: everything that a test starts ends with it,
// what pods left behind fails it, and the daemons' logs appear where it failed.
//
// A test of the whole thing starts a Node and speaks CRI to it; a test of one package may want only a
// containerd or a registry. The package holds no tests of its own subject and asserts nothing about pods.
package nodetest
