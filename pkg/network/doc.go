// Package network connects a pod's network namespace by CNI and disconnects it again.
//
// It is given the namespace and makes none. The loopback device is brought up over netlink; all
// else is done by the plugins that the node's CNI configuration names, run through go-cni and
// libcni with the arguments and capabilities that Kubernetes plugins expect: the pod's names,
// host ports, bandwidth, DNS, annotations and cgroup.
//
// The configuration is read when it is needed and has changed since, so nothing runs in the
// background: a CNI daemon may put its configuration into place, replace or remove it at any
// time. A node without one is allowed. Status says then what is missing and where, and pods on
// the host's network run.
//
// Teardown uses the configuration that Setup used, from libcni's cache below /var/lib/cni, and
// not the one of the day.
//
// The package keeps no record of pods and writes no resolv.conf; it does not bring up pods on
// the host's network, for they have nothing to be connected.
package network
