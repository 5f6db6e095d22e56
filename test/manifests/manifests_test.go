// Package manifests holds what an operator applies against the schemas of Kubernetes and of the Prometheus
// operator, and against what the project promises of it. It applies nothing.
package manifests

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
)

// TestOverlaysBuild: each has the objects that it is meant to have, and there is none that is not tested.
func TestOverlaysBuild(t *testing.T) {
	dirs, err := os.ReadDir(filepath.Join("..", "..", "manifests", "overlays"))
	if err != nil || len(dirs) != len(overlays) {
		t.Fatalf("overlays %v, %v, want %d", dirs, err, len(overlays))
	}
	for overlay, want := range overlays {
		var got []string
		for _, o := range build(t, overlay) {
			got = append(got, o.id())
		}
		slices.Sort(got)
		ok := slices.EqualFunc(got, want, func(g, w string) bool {
			prefix, hashed := strings.CutSuffix(w, "*")
			return g == w || hashed && strings.HasPrefix(g, prefix)
		})
		if !ok {
			t.Errorf("%s has\n%q, want\n%q", overlay, got, want)
		}
	}
}

// TestObjectsAreValid against Kubernetes' OpenAPI schemas, and those of CRDs against the operator's own types, strictly.
func TestObjectsAreValid(t *testing.T) {
	kubernetes := loadSchemas(t)
	for overlay := range overlays {
		for _, o := range build(t, overlay) {
			if err := validateObject(kubernetes, o); err != nil {
				t.Errorf("%s: %s: %v", overlay, o.id(), err)
			}
		}
	}
}

func validateObject(kubernetes *schemas, o object) error {
	switch o.str("kind") {
	case "PodMonitor":
		return strictly(o, &monitoringv1.PodMonitor{})
	case "PrometheusRule":
		return strictly(o, &monitoringv1.PrometheusRule{})
	}
	return kubernetes.check(o)
}

// strictly decodes an object into the type of its kind.
func strictly(o object, into any) error {
	data, err := json.Marshal(o)
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	return dec.Decode(into)
}

// TestValidationFinds what is wrong: without this a schema that lets all pass would not be noticed.
func TestValidationFinds(t *testing.T) {
	kubernetes := loadSchemas(t)
	find := func(kind string) object {
		for _, o := range build(t, "monitoring") {
			if o.str("kind") == kind {
				return o
			}
		}
		t.Fatalf("no %s", kind)
		return nil
	}
	for name, spoil := range map[string]func() object{
		"an unknown field": func() object {
			o := find("DaemonSet")
			o.at("spec", "template", "spec").(map[string]any)["hostUser"] = true
			return o
		},
		"a wrong type": func() object {
			o := find("DaemonSet")
			o.at("spec").(map[string]any)["minReadySeconds"] = "ten"
			return o
		},
		"a missing field": func() object { o := find("RuntimeClass"); delete(o, "handler"); return o },
		"no such kind":    func() object { o := find("RuntimeClass"); o["apiVersion"] = "node.k8s.io/v7"; return o },
		"an unknown field of a CRD": func() object {
			o := find("PodMonitor")
			o.at("spec").(map[string]any)["endpoints"] = []any{}
			return o
		},
	} {
		if err := validateObject(kubernetes, spoil()); err == nil {
			t.Errorf("%s passes", name)
		}
	}
}

// TestEveryObjectHasTheRecommendedLabels, and its namespace if it has one.
func TestEveryObjectHasTheRecommendedLabels(t *testing.T) {
	for overlay := range overlays {
		for _, o := range build(t, overlay) {
			for _, label := range []string{"app.kubernetes.io/name", "app.kubernetes.io/part-of"} {
				if o.str("metadata", "labels", label) != "userns-shim" {
					t.Errorf("%s: %s has no label %s", overlay, o.id(), label)
				}
			}
			clusterWide := slices.Contains([]string{"Namespace", "RuntimeClass"}, o.str("kind"))
			if (o.str("metadata", "namespace") == "userns-shim") == clusterWide {
				t.Errorf("%s: %s is in the namespace %q", overlay, o.id(), o.str("metadata", "namespace"))
			}
		}
	}
}

func decoded[T any](t *testing.T, overlay, id string) *T {
	t.Helper()
	for _, o := range build(t, overlay) {
		if o.id() == id {
			out := new(T)
			if err := strictly(o, out); err != nil {
				t.Fatal(err)
			}
			return out
		}
	}
	t.Fatalf("%s has no %s", overlay, id)
	return nil
}

// TestContainersHaveNoMoreThanTheyNeed: no capability, no API token, bounds on memory, and root in the init container alone.
func TestContainersHaveNoMoreThanTheyNeed(t *testing.T) {
	for overlay := range overlays {
		for _, o := range build(t, overlay) {
			if o.str("kind") != "DaemonSet" {
				continue
			}
			pod := decoded[appsv1.DaemonSet](t, overlay, o.id()).Spec.Template.Spec
			if pod.PriorityClassName != "system-node-critical" || pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken {
				t.Errorf("%s: %s has priority class %q, or an API token", overlay, o.id(), pod.PriorityClassName)
			}
			for _, c := range append(slices.Clone(pod.InitContainers), pod.Containers...) {
				if err := frugal(c); err != "" {
					t.Errorf("%s: %s: container %s %s", overlay, o.id(), c.Name, err)
				}
			}
			for _, c := range pod.Containers {
				if len(c.VolumeMounts) > 0 || c.SecurityContext.RunAsNonRoot == nil || !*c.SecurityContext.RunAsNonRoot {
					t.Errorf("%s: %s: container %s has the node's files, or is root", overlay, o.id(), c.Name)
				}
			}
		}
	}
}

func frugal(c corev1.Container) string {
	sc := c.SecurityContext
	switch {
	case c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero():
		return "has no requests or limits"
	case sc == nil || sc.Privileged == nil || *sc.Privileged || sc.AllowPrivilegeEscalation == nil || *sc.AllowPrivilegeEscalation:
		return "is privileged"
	case sc.Capabilities == nil || !slices.Contains(sc.Capabilities.Drop, "ALL") || len(sc.Capabilities.Add) > 0:
		return "has capabilities"
	case sc.ReadOnlyRootFilesystem == nil || !*sc.ReadOnlyRootFilesystem || sc.SeccompProfile == nil:
		return "may write to its root file system, or has no seccomp profile"
	case !strings.HasPrefix(c.Image, "ghcr.io/userns-shim/userns-shim:v"):
		return "has the image " + c.Image
	}
	return ""
}

// TestNodesHaveOneDaemonSet: the labels of a node choose installer, canary or uninstaller, never two.
func TestNodesHaveOneDaemonSet(t *testing.T) {
	install := decoded[appsv1.DaemonSet](t, "canary", "DaemonSet/userns-shim-installer").Spec.Template.Spec
	canary := decoded[appsv1.DaemonSet](t, "canary", "DaemonSet/userns-shim-installer-canary").Spec.Template.Spec
	remove := decoded[appsv1.DaemonSet](t, "canary", "DaemonSet/userns-shim-uninstaller").Spec.Template.Spec
	if install.NodeSelector["userns-shim.io/node"] != "install" || remove.NodeSelector["userns-shim.io/node"] != "uninstall" {
		t.Errorf("node selectors %v, %v", install.NodeSelector, remove.NodeSelector)
	}
	if canary.NodeSelector["userns-shim.io/canary"] != "true" || canary.NodeSelector["userns-shim.io/node"] != "install" {
		t.Errorf("the canary's node selector is %v", canary.NodeSelector)
	}
	if install.Affinity == nil {
		t.Fatal("the installer does not leave the canaries out")
	}
	expressions := install.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[0].MatchExpressions
	if len(expressions) != 1 || expressions[0].Key != "userns-shim.io/canary" || expressions[0].Operator != corev1.NodeSelectorOpNotIn || expressions[0].Values[0] != "true" {
		t.Errorf("the installer's affinity is %v", expressions)
	}
	if install.Containers[0].Image == canary.Containers[0].Image {
		t.Error("the canary has the image of all")
	}
	for _, class := range []string{"userns", "userns-opt-in"} {
		if s := decoded[nodev1.RuntimeClass](t, "canary", "RuntimeClass/"+class).Scheduling; s == nil || s.NodeSelector["userns-shim.io/node"] != "install" {
			t.Errorf("pods of class %s run on any node", class)
		}
	}
}

// TestPodMonitorFindsTheAgent: its selector and port are those of the installer's pods, in the overlay with monitoring alone.
func TestPodMonitorFindsTheAgent(t *testing.T) {
	ds := decoded[appsv1.DaemonSet](t, "monitoring", "DaemonSet/userns-shim-installer")
	monitor := decoded[monitoringv1.PodMonitor](t, "monitoring", "PodMonitor/userns-shim")
	for key, value := range monitor.Spec.Selector.MatchLabels {
		if ds.Spec.Template.Labels[key] != value {
			t.Errorf("the pods have %s=%s, the monitor wants %s", key, ds.Spec.Template.Labels[key], value)
		}
	}
	ports := ds.Spec.Template.Spec.Containers[0].Ports
	if len(ports) != 1 || ports[0].Name != *monitor.Spec.PodMetricsEndpoints[0].Port {
		t.Errorf("the pods have the ports %v, the monitor wants %v", ports, *monitor.Spec.PodMetricsEndpoints[0].Port)
	}
	// The operator refuses others; its types do not tell.
	duration := regexp.MustCompile(`^[0-9]+(ms|[smhd])$`)
	for _, endpoint := range monitor.Spec.PodMetricsEndpoints {
		if !duration.MatchString(string(endpoint.Interval)) {
			t.Errorf("the interval is %q", endpoint.Interval)
		}
	}
	if plain := decoded[appsv1.DaemonSet](t, "default", "DaemonSet/userns-shim-installer"); len(plain.Spec.Template.Spec.Containers[0].Ports) > 0 {
		t.Error("without monitoring the node's metrics are on its address too")
	}
}

// TestNamespaceAdmitsTheInstaller, which mounts the node's root: with a Pod Security level as default of the cluster, it would be
// refused elsewhere.
func TestNamespaceAdmitsTheInstaller(t *testing.T) {
	for overlay := range overlays {
		labels := decoded[corev1.Namespace](t, overlay, "Namespace/userns-shim").Labels
		for _, mode := range []string{"enforce", "audit", "warn"} {
			if level := labels["pod-security.kubernetes.io/"+mode]; level != "privileged" {
				t.Errorf("%s: the namespace has the level %q to %s", overlay, level, mode)
			}
		}
		for label := range labels {
			if mode, ok := strings.CutPrefix(label, "pod-security.kubernetes.io/"); ok && !slices.Contains([]string{"enforce", "audit", "warn"}, mode) {
				t.Errorf("%s: the namespace has the label %s, which means nothing", overlay, label)
			}
		}
	}
}
