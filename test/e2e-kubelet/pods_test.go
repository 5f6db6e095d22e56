package e2ekubelet

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// id is what sandboxes and containers are named by.
var id = regexp.MustCompile(`^[0-9a-f]{64}$`)

// namespace is that of all pods.
const namespace = "e2e"

// pod is a pod of kubelet's.
type pod struct {
	node     *node
	name     string // as kubelet names it: that of a static one ends with the node's name
	manifest string // path of a static pod's file
	api      *apiServer
}

// eachUsers runs a test of pods with and without a user namespace, side by side.
func eachUsers(t *testing.T, test func(t *testing.T, n *node, hostUsers bool)) {
	t.Helper()
	n := parallelNode(t)
	for _, hostUsers := range []bool{false, true} {
		t.Run(fmt.Sprintf("hostUsers=%t", hostUsers), func(t *testing.T) {
			t.Parallel()
			test(t, n, hostUsers)
		})
	}
}

// run starts a static pod of a spec in YAML, in which IMAGE is the demo image. It is removed when the test ends.
func (n *node) run(t testing.TB, hostUsers bool, spec string) *pod {
	t.Helper()
	made := n.newPod(t, hostUsers, spec)
	p := &pod{node: n, name: made.Name + "-" + n.kubelet.NodeName, manifest: filepath.Join(n.kubelet.Manifests, made.Name+".json")}
	p.write(t, made)
	p.removeAtEnd(t)
	return p
}

func (n *node) newPod(t testing.TB, hostUsers bool, spec string) *corev1.Pod {
	t.Helper()
	made := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}}
	made.Name = "p-" + strings.ToLower(rand.Text()[:10])
	made.Namespace = namespace
	made.Labels = map[string]string{"app": "demo", "test": strings.ToLower(regexp.MustCompile(`\W+`).ReplaceAllString(t.Name(), "-"))[:min(len(t.Name()), 60)]}
	made.Annotations = map[string]string{"note": "of the test"}
	if err := yaml.UnmarshalStrict([]byte(strings.ReplaceAll(spec, "IMAGE", n.image)), &made.Spec); err != nil {
		t.Fatalf("decode pod: %v", err)
	}
	made.Spec.HostUsers = &hostUsers
	for _, list := range [][]corev1.Container{made.Spec.InitContainers, made.Spec.Containers} {
		for i := range list {
			list[i].ImagePullPolicy = corev1.PullIfNotPresent // an image that is called latest is pulled each time otherwise
		}
	}
	if made.Spec.TerminationGracePeriodSeconds == nil {
		made.Spec.TerminationGracePeriodSeconds = ptr.To[int64](1) // the box's sleep ignores SIGTERM
	}
	return made
}

func (p *pod) removeAtEnd(t testing.TB) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			p.show(t)
		}
		p.remove(t)
	})
}

// write puts the manifest in place in one go, for kubelet watches the directory.
func (p *pod) write(t testing.TB, made *corev1.Pod) {
	t.Helper()
	text, err := json.Marshal(made)
	if err != nil {
		t.Fatal(err)
	}
	temporary := filepath.Join(p.node.Dir, filepath.Base(p.manifest))
	if err := errors.Join(os.WriteFile(temporary, text, 0o644), os.Rename(temporary, p.manifest)); err != nil {
		t.Fatal(err)
	}
}

// get is the pod as kubelet knows it; nil when it does not.
func (p *pod) get(ctx context.Context) (*corev1.Pod, error) {
	all, err := p.node.client.pods(ctx)
	if err != nil {
		return nil, err
	}
	for i := range all {
		if all[i].Name == p.name {
			return &all[i], nil
		}
	}
	return nil, nil
}

// await polls the pod until check accepts it.
func (p *pod) await(t testing.TB, what string, check func(*corev1.Pod) error) *corev1.Pod {
	t.Helper()
	var last *corev1.Pod
	eventually(t, p.name+": "+what, func() error {
		now, err := p.get(context.WithoutCancel(t.Context()))
		if err != nil {
			return err
		}
		if now == nil {
			return errors.New("kubelet does not know the pod")
		}
		last = now
		return check(now)
	})
	return last
}

// ready waits until the pod is.
func (p *pod) ready(t testing.TB) *corev1.Pod {
	t.Helper()
	return p.await(t, "ready", isReady)
}

func isReady(now *corev1.Pod) error {
	for _, condition := range now.Status.Conditions {
		if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
			return nil
		}
	}
	return fmt.Errorf("its phase is %s %s; %s", now.Status.Phase, now.Status.Reason, states(now))
}

// ended waits until the pod is in one of its two last phases.
func (p *pod) ended(t testing.TB, want corev1.PodPhase) *corev1.Pod {
	t.Helper()
	return p.await(t, "ended as "+string(want), func(now *corev1.Pod) error {
		if now.Status.Phase != want {
			return fmt.Errorf("its phase is %s %s; %s", now.Status.Phase, now.Status.Reason, states(now))
		}
		return nil
	})
}

// states are those of the containers, for messages.
func states(now *corev1.Pod) string {
	var text strings.Builder
	for _, list := range [][]corev1.ContainerStatus{now.Status.InitContainerStatuses, now.Status.ContainerStatuses} {
		for _, s := range list {
			state, _ := json.Marshal(s.State)
			fmt.Fprintf(&text, "%s (%d restarts) %s; ", s.Name, s.RestartCount, state)
		}
	}
	return text.String()
}

// delete makes kubelet end the pod.
func (p *pod) delete(t testing.TB) {
	t.Helper()
	if p.api != nil {
		p.deleteObject(t, -1)
		return
	}
	if err := os.Remove(p.manifest); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// remove deletes the pod and waits until it has ended. kubelet does not list it any more by then, and goes on to clear it away.
func (p *pod) remove(t testing.TB) {
	t.Helper()
	p.delete(t)
	eventually(t, p.name+" is gone", func() error {
		now, err := p.get(context.Background())
		if err == nil && now != nil {
			err = fmt.Errorf("kubelet still has it: %s", states(now))
		}
		if err == nil && len(p.readySandboxes(t)) > 0 {
			err = errors.New("its sandbox is ready still")
		}
		return err
	})
}

// show logs what there is to know about a pod of a test that failed.
func (p *pod) show(t testing.TB) {
	t.Helper()
	if now, err := p.get(context.Background()); err == nil && now != nil {
		status, _ := json.Marshal(now.Status)
		t.Logf("status of %s: %s", p.name, status)
	}
	for name, log := range map[string]string{"kubelet": p.node.kubelet.Log, "userns-shim": p.node.Daemon.Log} {
		t.Logf("%s on %s:\n%s", name, p.name, linesWith(labnode.LogTail(log), p.name))
	}
}

func linesWith(text, part string) string {
	var found strings.Builder
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) {
			found.WriteString(line)
		}
	}
	return found.String()
}

// status is that of one container, of whatever kind; the zero one as long as kubelet has none.
func status(now *corev1.Pod, name string) corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{now.Status.InitContainerStatuses, now.Status.ContainerStatuses} {
		for _, s := range list {
			if s.Name == name {
				return s
			}
		}
	}
	return corev1.ContainerStatus{}
}

// ending is how a container of a pod ended that has no other attempt.
func ending(t testing.TB, now *corev1.Pod, name string) corev1.ContainerStateTerminated {
	t.Helper()
	ended := status(now, name).State.Terminated
	if ended == nil {
		t.Fatalf("container %s has not ended: %s", name, states(now))
	}
	return *ended
}

// container is a container of the pod at the side of CRI.
func (p *pod) container(t testing.TB, name string) *nodetest.Container {
	t.Helper()
	now := p.await(t, "known", func(*corev1.Pod) error { return nil })
	_, bare, ok := strings.Cut(status(now, name).ContainerID, "://")
	if !ok || !id.MatchString(bare) {
		t.Fatalf("container %s of %s has the id %q", name, p.name, bare)
	}
	return p.sandbox(t).Adopt(bare, &runtimeapi.ContainerConfig{Metadata: &runtimeapi.ContainerMetadata{Name: name}})
}

// exec runs a command in a container and returns its output.
func (p *pod) exec(t testing.TB, container string, argv ...string) string {
	t.Helper()
	return p.container(t, container).Exec(t, argv...)
}

// sh runs a script in the container called main.
func (p *pod) sh(t testing.TB, script string) string {
	t.Helper()
	return p.exec(t, "main", "sh", "-c", script)
}
