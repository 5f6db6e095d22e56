package e2ekubelet

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// nodeObject is the node as kubelet tells the API server of it.
func (s *apiServer) nodeObject(name string) (*corev1.Node, error) {
	obj, err := s.objects.Get(corev1.SchemeGroupVersion.WithResource("nodes"), "", name)
	if err != nil {
		return nil, err
	}
	found, ok := obj.(*corev1.Node)
	if !ok {
		return nil, fmt.Errorf("node %s is a %T", name, obj)
	}
	return found, nil
}

// awaitNode polls the node until it is ready, or is not, and check accepts it.
func (n *node) awaitNode(t *testing.T, api *apiServer, ready corev1.ConditionStatus, check func(*corev1.Node, corev1.NodeCondition) error) {
	t.Helper()
	eventually(t, "the node's Ready is "+string(ready), func() error {
		now, err := api.nodeObject(n.kubelet.NodeName)
		if err != nil {
			return err
		}
		for _, condition := range now.Status.Conditions {
			if condition.Type == corev1.NodeReady && condition.Status == ready {
				return check(now, condition)
			}
		}
		return fmt.Errorf("its conditions are %+v", now.Status.Conditions)
	})
}

// statusOfTheNode is by what the scheduler and admission know what pods the node can run.
func statusOfTheNode(t *testing.T, n *node, api *apiServer) {
	n.awaitNode(t, api, corev1.ConditionTrue, func(now *corev1.Node, _ corev1.NodeCondition) error {
		if got := now.Status.NodeInfo.ContainerRuntimeVersion; !strings.HasPrefix(got, "userns-shim://") {
			return fmt.Errorf("the runtime is %q", got)
		}
		if f := now.Status.Features; f == nil || f.SupplementalGroupsPolicy == nil || !*f.SupplementalGroupsPolicy {
			return fmt.Errorf("the features are %+v", f)
		}
		var names []string
		for _, handler := range now.Status.RuntimeHandlers {
			names = append(names, handler.Name)
			f := handler.Features
			if f == nil || f.UserNamespaces == nil || !*f.UserNamespaces || f.RecursiveReadOnlyMounts == nil || !*f.RecursiveReadOnlyMounts {
				return fmt.Errorf("the features of the runtime handler %q are %+v", handler.Name, f)
			}
		}
		if slices.Sort(names); !slices.Equal(names, []string{"", otherHandler, "runc"}) {
			return fmt.Errorf("the runtime handlers are %q", names)
		}
		for _, image := range now.Status.Images {
			if slices.Contains(image.Names, n.image) && image.SizeBytes > 0 {
				return nil
			}
		}
		return fmt.Errorf("the images are %+v", now.Status.Images)
	})
}

// missingNetwork takes the pod network's configuration away: no pod is sent to such a node, and those that run stay.
func missingNetwork(t *testing.T, n *node, api *apiServer) {
	p := n.runAPI(t, api, false, sleeper)
	before := runningContainers(t, []*pod{p})
	config := filepath.Join(n.CNIConfDir(), "10-lab.conflist")
	if err := os.Rename(config, config+".away"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Rename(config+".away", config); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	})
	n.awaitNode(t, api, corev1.ConditionFalse, func(_ *corev1.Node, why corev1.NodeCondition) error {
		if !strings.Contains(why.Message, "NetworkReady=false") || !strings.Contains(why.Message, n.CNIConfDir()) {
			return fmt.Errorf("the message is %q", why.Message)
		}
		return nil
	})
	if err := os.Rename(config+".away", config); err != nil {
		t.Fatal(err)
	}
	n.awaitNode(t, api, corev1.ConditionTrue, func(*corev1.Node, corev1.NodeCondition) error { return nil })
	wantSame(t, []*pod{p}, before)
	n.runAPI(t, api, false, sleeper).ready(t)
}
