// Package rebuild makes the database of a node again when it was lost or damaged, while the pods run on.
//
// Each record of a sandbox or container has a copy in a file under the state directory (state.Mirror), from which it is taken as it
// was. Where such a file is missing or damaged too, a record is put together from what the kernel and containerd have: the pins with their
// mapping, the labels and the specification of containers, and what CNI was told of a pod without containers. That is enough to stop and to remove such a pod, so it is shown as
// not ready, and kubelet makes it anew.
//
// Planning is apart from writing, and asks nobody. The package stops nothing and changes nothing on the node but the
// database; what the records say and is not so, the daemon's recovery sees to when it starts.
package rebuild
