// Package cadvisor names what pods and containers use as kubelet's cAdvisor does, with the same
// metrics and labels, so that dashboards and alerts do not notice where kubelet takes them from.
//
// Three things cannot be the same, because CRI's metrics are whole numbers and a pod has no
// pause container: seconds have no fraction; the network belongs to the pod's cgroup, with no
// image; a metric that cAdvisor would give as infinite or -1 is left out.
//
// The package converts; it reads nothing.
package cadvisor
