package e2ekubelet

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/userns-shim/userns-shim/internal/labnode"
)

// TestPodsOfAnAPIServer is for what static pods cannot have: volumes of API objects, evictions, changes of a pod that runs.
func TestPodsOfAnAPIServer(t *testing.T) {
	n := sharedNode(t)
	api := n.withAPIServer(t)
	tests := map[string]func(t *testing.T, n *node, api *apiServer, hostUsers bool){
		"volumes of objects":          volumesOfObjects,
		"recursive read-only mounts":  recursiveReadOnly,
		"runtime class":               runtimeClass,
		"ephemeral storage is capped": ephemeralStorage,
		"sizeLimit of an emptyDir":    emptyDirLimit,
		"deletion with another grace": deletionGrace,
		"addresses":                   addresses,
		"host network":                hostNetwork,
		"users and groups":            usersAndGroups,
		"resize":                      resize,
		"ephemeral container":         ephemeralContainer,
	}
	t.Run("all", func(t *testing.T) { // ends when its parallel tests have
		for name, test := range tests {
			for _, hostUsers := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/hostUsers=%t", name, hostUsers), func(t *testing.T) {
					t.Parallel()
					test(t, n, api, hostUsers)
				})
			}
		}
		t.Run("status of the node", func(t *testing.T) {
			t.Parallel()
			statusOfTheNode(t, n, api)
		})
	})
	t.Run("network that is missing", func(t *testing.T) { missingNetwork(t, n, api) })
}

// volumesOfObjects has a user read a secret, a configMap and what every pod of a cluster has, its token; and sees a change of them.
func volumesOfObjects(t *testing.T, n *node, api *apiServer, hostUsers bool) {
	suffix := fmt.Sprintf("-%t", hostUsers)
	config := &corev1.ConfigMap{Data: map[string]string{"key": "of the configMap", "env": "variable"}}
	config.Name, config.Namespace = "config"+suffix, namespace
	secret := &corev1.Secret{Data: map[string][]byte{"key": []byte("of the secret")}}
	secret.Name, secret.Namespace = "secret"+suffix, namespace
	api.create(t, "configmaps", config)
	api.create(t, "secrets", secret)
	p := n.runAPI(t, api, hostUsers, strings.ReplaceAll(`
serviceAccountName: default
securityContext: {fsGroup: 2000}
containers:
- name: main
  image: IMAGE
  command: [sleep, infinity]
  securityContext: {runAsUser: 1000, runAsGroup: 1000}
  env: [{name: FROM, valueFrom: {configMapKeyRef: {name: configSUFFIX, key: env}}}]
  volumeMounts: [{name: config, mountPath: /config}, {name: secret, mountPath: /secret}, {name: token, mountPath: /token, readOnly: true}, {name: config, mountPath: /one, subPath: key}]
volumes:
- {name: config, configMap: {name: configSUFFIX, defaultMode: 0440}}
- {name: secret, secret: {secretName: secretSUFFIX, defaultMode: 0400}}
- name: token
  projected:
    defaultMode: 0644
    sources:
    - serviceAccountToken: {path: token, expirationSeconds: 3607}
    - configMap: {name: configSUFFIX, items: [{key: key, path: deep/key}]}
    - downwardAPI: {items: [{path: namespace, fieldRef: {apiVersion: v1, fieldPath: metadata.namespace}}]}
`, "SUFFIX", suffix))
	p.ready(t)
	if got := p.sh(t, "for f in /config/key /secret/key /token/token /token/deep/key /token/namespace /one; do cat $f; echo; done; echo $FROM"); got != "of the configMap\nof the secret\na-token\nof the configMap\ne2e\nof the configMap\nvariable" {
		t.Errorf("the pod reads %q", got)
	}
	if got := p.sh(t, "stat -Lc %u:%g:%a /config/key /secret/key /token/token"); got != "0:2000:440\n0:2000:440\n1000:2000:640" { // kubelet gives the token to the only user
		t.Errorf("owners and modes are %q", got)
	}
	config = config.DeepCopy()
	config.Data["key"] = "has changed"
	if err := api.objects.Update(corev1.SchemeGroupVersion.WithResource("configmaps"), config, namespace); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the pod sees the change", func() error {
		if got := p.sh(t, "cat /config/key; echo; cat /token/deep/key; echo; cat /one"); got != "has changed\nhas changed\nof the configMap" {
			return errors.New(got)
		}
		return nil
	})
}

func recursiveReadOnly(t *testing.T, n *node, api *apiServer, hostUsers bool) {
	p := n.runAPI(t, api, hostUsers, `
containers:
- {name: main, image: IMAGE, command: [sleep, infinity], volumeMounts: [{name: host, mountPath: /host, readOnly: true, recursiveReadOnly: Enabled}]}
volumes: [{name: host, hostPath: {path: `+n.hostDir(t)+`, type: Directory}}]
`)
	now := p.ready(t)
	if resp, err := p.container(t, "main").TryExec(t.Context(), "touch", "/host/x"); err != nil || resp.ExitCode == 0 || !strings.Contains(string(resp.Stderr), "Read-only") {
		t.Errorf("a write: %v, %v; want a read-only file system", resp, err)
	}
	mounts := status(now, "main").VolumeMounts
	if len(mounts) != 1 || mounts[0].RecursiveReadOnly == nil || *mounts[0].RecursiveReadOnly != corev1.RecursiveReadOnlyEnabled {
		t.Errorf("the status of the mounts is %+v", mounts)
	}
}

func runtimeClass(t *testing.T, n *node, api *apiServer, hostUsers bool) {
	class := &nodev1.RuntimeClass{Handler: otherHandler}
	class.Name = fmt.Sprintf("other-%t", hostUsers)
	if err := api.objects.Create(nodev1.SchemeGroupVersion.WithResource("runtimeclasses"), class, ""); err != nil {
		t.Fatal(err)
	}
	p := n.runAPI(t, api, hostUsers, `
runtimeClassName: `+class.Name+`
containers: [{name: main, image: IMAGE, command: [sleep, infinity]}]
`)
	p.ready(t)
	if got := p.sandbox(t).Status(t).RuntimeHandler; got != otherHandler {
		t.Errorf("the pod's runtime handler is %q", got)
	}
}

// ephemeralStorage has a container write more into its root filesystem than it may: kubelet learns that from CRI.
func ephemeralStorage(t *testing.T, n *node, api *apiServer, hostUsers bool) {
	p := n.runAPI(t, api, hostUsers, `
restartPolicy: Never
containers: [{name: main, image: IMAGE, command: [sh, -c, 'dd if=/dev/zero of=/x bs=1M count=24; sleep infinity'], resources: {limits: {ephemeral-storage: 8Mi}}}]
`)
	if got := p.evicted(t); !strings.Contains(got, "ephemeral local storage") {
		t.Errorf("the message is %q", got)
	}
}

func emptyDirLimit(t *testing.T, n *node, api *apiServer, hostUsers bool) {
	p := n.runAPI(t, api, hostUsers, `
restartPolicy: Never
containers: [{name: main, image: IMAGE, command: [sh, -c, 'dd if=/dev/zero of=/vol/x bs=1M count=24; sleep infinity'], volumeMounts: [{name: vol, mountPath: /vol}]}]
volumes: [{name: vol, emptyDir: {sizeLimit: 8Mi}}]
`)
	if got := p.evicted(t); !strings.Contains(got, `EmptyDir volume "vol" exceeds`) {
		t.Errorf("the message is %q", got)
	}
}

// deletionGrace deletes a pod with less grace than its own, of which it would use all.
func deletionGrace(t *testing.T, n *node, api *apiServer, hostUsers bool) {
	p := n.runAPI(t, api, hostUsers, `
terminationGracePeriodSeconds: 600
containers: [{name: main, image: IMAGE, command: [sleep, infinity]}]
`)
	p.ready(t)
	began := time.Now()
	p.deleteObject(t, 2)
	eventually(t, "the object is gone", func() error {
		if p.object(t) != nil {
			return errors.New("it is there")
		}
		return nil
	})
	if took := time.Since(began); took < 2*time.Second {
		t.Errorf("the pod was gone after %s", took)
	}
}

// addresses are those that kubelet tells the API server.
func addresses(t *testing.T, n *node, api *apiServer, hostUsers bool) {
	p := n.runAPI(t, api, hostUsers, sleeper)
	p.ready(t)
	got := p.awaitObject(t, "has an address", func(now *corev1.Pod) error {
		if now.Status.PodIP == "" {
			return errors.New("it has none")
		}
		return nil
	}).Status
	if inside := p.sh(t, "ip -4 -o addr show eth0 | awk '{print $4}'"); inside != got.PodIP+"/16" || got.HostIP != labnode.NodeIP {
		t.Errorf("the pod's address is %s (inside %s), the node's %s", got.PodIP, inside, got.HostIP)
	}
}

// resize changes limits of a container that runs.
func resize(t *testing.T, n *node, api *apiServer, hostUsers bool) {
	p := n.runAPI(t, api, hostUsers, `
containers:
- name: main
  image: IMAGE
  command: [sleep, infinity]
  resources: {requests: {cpu: 20m, memory: 32Mi}, limits: {cpu: 50m, memory: 64Mi}}
  resizePolicy: [{resourceName: cpu, restartPolicy: NotRequired}, {resourceName: memory, restartPolicy: NotRequired}]
`)
	before := status(p.ready(t), "main")
	p.change(t, func(now *corev1.Pod) {
		now.Generation++
		now.Spec.Containers[0].Resources.Limits = corev1.ResourceList{"cpu": resource.MustParse("80m"), "memory": resource.MustParse("96Mi")}
	})
	pid := p.container(t, "main").PID(t)
	eventually(t, "limits have changed", func() error {
		memory := cgroupValue(t, cgroupDir(t, pid, "memory"), "memory.limit_in_bytes", "memory.max")
		cpu, _, _ := strings.Cut(cgroupValue(t, cgroupDir(t, pid, "cpu"), "cpu.cfs_quota_us", "cpu.max"), " ")
		if memory != "100663296" || cpu != "8000" {
			return fmt.Errorf("memory %s, cpu %s; %+v", memory, cpu, p.object(t).Status.Conditions)
		}
		return nil
	})
	if after := status(p.ready(t), "main"); after.ContainerID != before.ContainerID || after.RestartCount != 0 {
		t.Errorf("the container is %s, and was %s", after.ContainerID, before.ContainerID)
	}
}

// ephemeralContainer is `kubectl debug`, in the process namespace of the container that it looks at.
func ephemeralContainer(t *testing.T, n *node, api *apiServer, hostUsers bool) {
	p := n.runAPI(t, api, hostUsers, `
containers: [{name: main, image: IMAGE, command: [sleep, '13579']}]
`)
	p.ready(t)
	p.change(t, func(now *corev1.Pod) {
		now.Spec.EphemeralContainers = []corev1.EphemeralContainer{{
			TargetContainerName: "main",
			EphemeralContainerCommon: corev1.EphemeralContainerCommon{
				Name: "debug", Image: n.image, Command: []string{"sh", "-c", "tr '\\0' ' ' < /proc/1/cmdline; echo; readlink /proc/1/ns/user; readlink /proc/self/ns/user; sleep infinity"}, ImagePullPolicy: corev1.PullIfNotPresent,
				TerminationMessagePath: corev1.TerminationMessagePathDefault, TerminationMessagePolicy: corev1.TerminationMessageReadFile,
			},
		}}
	})
	eventually(t, "the debugger has written", func() error {
		text, err := n.client.get(t.Context(), p.path("containerLogs", "debug"), nil)
		if err != nil {
			return err
		}
		lines := strings.Fields(string(text))
		if len(lines) != 4 || lines[0] != "sleep" || lines[1] != "13579" || lines[2] != lines[3] {
			return fmt.Errorf("its log is %q", text)
		}
		return nil
	})
}
