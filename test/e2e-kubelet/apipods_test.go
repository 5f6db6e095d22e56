package e2ekubelet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/utils/ptr"
)

// withAPIServer runs kubelet with an API server until the test ends.
func (n *node) withAPIServer(t *testing.T) *apiServer {
	t.Helper()
	api, err := startAPIServer(n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := api.close(); err != nil { // kubelet is back without it by then
			t.Error(err)
		}
	})
	config := fmt.Sprintf(`{apiVersion: v1, kind: Config, clusters: [{name: lab, cluster: {server: %q}}], contexts: [{name: lab, context: {cluster: lab}}], current-context: lab}`, api.url)
	path := filepath.Join(n.Dir, "kubeconfig")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	opts := n.defaults()
	opts.Args = []string{"--kubeconfig", path}
	opts.Config["contentType"] = "application/json"
	opts.Config["syncFrequency"] = "2s" // a minute by default, after which changed volumes are written
	opts.Config["nodeStatusUpdateFrequency"] = "1s"
	// Host networks with a user namespace are of an alpha version, and the node has to say that it can.
	opts.Config["featureGates"] = map[string]bool{"UserNamespacesHostNetworkSupport": true}
	n.otherKubelet(t, opts)
	return api
}

// create adds an object.
func (s *apiServer) create(t testing.TB, resource string, obj runtime.Object) {
	t.Helper()
	if err := s.objects.Create(corev1.SchemeGroupVersion.WithResource(resource), obj, namespace); err != nil {
		t.Fatal(err)
	}
}

// runAPI starts a pod that the API server tells of. It is removed when the test ends.
func (n *node) runAPI(t testing.TB, api *apiServer, hostUsers bool, spec string) *pod {
	t.Helper()
	made := n.newPod(t, hostUsers, spec)
	made.UID, made.CreationTimestamp = uuid.NewUUID(), metav1.Now()
	setDefaults(&made.Spec, n.kubelet.NodeName)
	api.create(t, "pods", made)
	p := &pod{node: n, name: made.Name, api: api}
	p.removeAtEnd(t)
	return p
}

// setDefaults does what a real API server does, which also binds a pod to its node.
func setDefaults(spec *corev1.PodSpec, node string) {
	spec.NodeName, spec.SchedulerName = node, "default-scheduler"
	spec.DNSPolicy, spec.EnableServiceLinks = corev1.DNSDefault, ptr.To(false)
	if spec.RestartPolicy == "" {
		spec.RestartPolicy = corev1.RestartPolicyAlways
	}
	if spec.SecurityContext == nil {
		spec.SecurityContext = &corev1.PodSecurityContext{}
	}
	for i := range spec.Containers {
		c := &spec.Containers[i]
		c.TerminationMessagePath, c.TerminationMessagePolicy = corev1.TerminationMessagePathDefault, corev1.TerminationMessageReadFile
	}
}

var podResource = corev1.SchemeGroupVersion.WithResource("pods")

// object is the pod as the API server has it, with the status that kubelet has told; nil when it has gone.
func (p *pod) object(t testing.TB) *corev1.Pod {
	t.Helper()
	obj, err := p.api.objects.Get(podResource, namespace, p.name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	found, ok := obj.(*corev1.Pod)
	if !ok {
		t.Fatalf("pod %s is a %T", p.name, obj)
	}
	return found.DeepCopy()
}

// change updates the pod's object.
func (p *pod) change(t testing.TB, how func(*corev1.Pod)) {
	t.Helper()
	if !p.tryChange(t, how) {
		t.Fatalf("%s has gone", p.name)
	}
}

// tryChange is change of a pod that may have gone, which it tells.
func (p *pod) tryChange(t testing.TB, how func(*corev1.Pod)) bool {
	t.Helper()
	p.api.objects.changing.Lock()
	defer p.api.objects.changing.Unlock()
	now := p.object(t)
	if now == nil {
		return false
	}
	how(now)
	if err := p.api.objects.Update(podResource, now, namespace); err != nil {
		t.Fatal(err)
	}
	return true
}

// deleteObject is what `kubectl delete pod` does. A negative grace is the pod's own.
func (p *pod) deleteObject(t testing.TB, grace int64) {
	t.Helper()
	p.tryChange(t, func(now *corev1.Pod) {
		if grace < 0 {
			grace = *now.Spec.TerminationGracePeriodSeconds
		}
		at := metav1.NewTime(time.Now().Add(time.Duration(grace) * time.Second))
		now.DeletionTimestamp, now.DeletionGracePeriodSeconds = &at, &grace
	})
}

// awaitObject polls the object until check accepts it.
func (p *pod) awaitObject(t testing.TB, what string, check func(*corev1.Pod) error) *corev1.Pod {
	t.Helper()
	var last *corev1.Pod
	eventually(t, p.name+": "+what, func() error {
		if last = p.object(t); last == nil {
			return errors.New("the pod has gone")
		}
		return check(last)
	})
	return last
}

// evicted waits until kubelet has evicted the pod and returns its message.
func (p *pod) evicted(t testing.TB) string {
	t.Helper()
	now := p.awaitObject(t, "evicted", func(now *corev1.Pod) error {
		if now.Status.Phase != corev1.PodFailed || now.Status.Reason != "Evicted" {
			return fmt.Errorf("its phase is %s %s: %s; %s", now.Status.Phase, now.Status.Reason, now.Status.Message, states(now))
		}
		return nil
	})
	eventually(t, p.name+" has ended", func() error {
		for _, c := range p.containers(t) {
			if p.alive(t, c.Id) {
				return fmt.Errorf("container %s runs", c.Id)
			}
		}
		return context.Cause(t.Context())
	})
	return now.Status.Message
}
