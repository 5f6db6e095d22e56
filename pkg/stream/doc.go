// Package stream carries the stdio of containers: from FIFOs into container log
// files, to and from attached and exec'ing clients, and between clients and the
// ports of a pod.
//
// It does not know containerd, run processes, or find containers: its callers give
// paths, streams and a Process. Log files are those of package crilog, FIFOs those
// of package fifo.
package stream
