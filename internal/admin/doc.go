// Package admin is the protocol between a running userns-shim and its operator's commands:
// JSON over HTTP on a unix socket that only root can open. It holds both ends and the
// messages; it prints nothing and decides nothing about the pool.
package admin
