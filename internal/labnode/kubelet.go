package labnode

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"

	"sigs.k8s.io/yaml"
)

// kubeletPort is in the node's own network namespace, so a fixed port is free.
const kubeletPort = 10250

// NodeIP is the address that kubelet has for the node's; it may be none of loopback's.
const NodeIP = "192.0.2.1"

// KubeletOptions are what differs between the kubelets of tests.
type KubeletOptions struct {
	// IDs are the subordinate ids of a user called kubelet, from which kubelet then draws; the zero Extent means that
	// there is no such user.
	IDs Extent
	// Config are fields of KubeletConfiguration that are added to, or replace, the lab's own.
	Config map[string]any
	// Args are added to the command line.
	Args []string
}

// Kubelet is a kubelet of the lab's own, without an API server: it runs the pods whose manifests are in a directory. Its
// methods are not safe for concurrent use.
type Kubelet struct {
	Root      string // its --root-dir
	Manifests string // a file for each static pod
	Logs      string // of pods
	NodeName  string
	Log       string // what it logs itself

	node *Node
	opts KubeletOptions
	service
}

// StartKubelet starts a kubelet on a node whose userns-shim runs, and waits until it is healthy. The node's Close ends it; there is one
// kubelet on a node at a time.
func StartKubelet(ctx context.Context, node *Node, opts KubeletOptions) (*Kubelet, error) {
	if err := node.tools.Check("kubelet"); err != nil {
		return nil, fmt.Errorf("find kubelet: %w", err)
	}
	dir := filepath.Join(node.Dir, "k")
	k := &Kubelet{
		Root:      filepath.Join(dir, "root"),
		Manifests: filepath.Join(dir, "manifests"),
		Logs:      filepath.Join(dir, "pods"),
		Log:       filepath.Join(dir, "kubelet.log"),
		NodeName:  "lab",
		node:      node,
	}
	for _, made := range []string{k.Root, k.Manifests, k.Logs} {
		if err := os.MkdirAll(made, 0o755); err != nil {
			return nil, fmt.Errorf("make directory for kubelet: %w", err)
		}
	}
	err := errors.Join(makeCgroups(node.Name), writeTunables(k.tunables()), node.World.Do(addNodeIP))
	if err != nil {
		return nil, err
	}
	node.kubelet = k
	return k, k.Restart(ctx, opts)
}

// dir is where all files of the kubelet are.
func (k *Kubelet) dir() string { return filepath.Dir(k.Root) }

func (k *Kubelet) tunables() string { return filepath.Join(k.dir(), "tunables") }

// Restart starts the kubelet, ending one that runs, with other options on the same directories.
func (k *Kubelet) Restart(ctx context.Context, opts KubeletOptions) error {
	if err := k.Stop(ctx); err != nil {
		return err
	}
	k.opts = opts
	text, err := yaml.Marshal(k.config())
	if err != nil {
		return fmt.Errorf("encode kubelet's configuration: %w", err)
	}
	if err := os.WriteFile(k.configPath(), text, 0o644); err != nil {
		return fmt.Errorf("write kubelet's configuration: %w", err)
	}
	if err := k.node.World.Do(func() error { return setKubeletUser(k.dir(), opts.IDs) }); err != nil {
		return err
	}
	return k.Start(ctx)
}

func (k *Kubelet) configPath() string { return filepath.Join(k.dir(), "config.yaml") }

// Start starts a stopped or killed kubelet again as it was.
func (k *Kubelet) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	kubelet := append([]string{
		k.node.tools.Path("kubelet"), "--config", k.configPath(), "--root-dir", k.Root, "--cert-dir", filepath.Join(k.dir(), "pki"),
		"--hostname-override", k.NodeName, "--node-ip", NodeIP,
		"--containerd", k.node.Containerd.Address, "--containerd-namespace", Namespace, // cAdvisor's
	}, k.opts.Args...)
	return k.launch(ctx, k.node.World, command{
		name: "kubelet",
		path: "unshare",
		args: append([]string{"--mount", "--propagation", "unchanged", "--", "sh", "-euc", hideTunables, k.tunables()}, kubelet...),
		env:  []string{k.node.tools.searchPath()},
		log:  k.Log,
	}, k.healthy)
}

func (k *Kubelet) healthy(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, k.URL()+"/healthz", nil)
	if err != nil {
		return err
	}
	resp, err := k.Client().Do(request)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("healthz answers %s: %s", resp.Status, body)
	}
	return nil
}

// URL is where its server is, inside the node's world. It lets anybody do anything.
func (k *Kubelet) URL() string {
	return "https://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(kubeletPort))
}

// Client reaches its server, whose certificate is one that it signed itself.
func (k *Kubelet) Client() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext:       k.node.World.Dial,
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
	}}
}

func (k *Kubelet) pidOrZero() int {
	if k == nil {
		return 0
	}
	return k.proc.pidOrZero()
}

// PodDir is what it keeps of one pod.
func (k *Kubelet) PodDir(uid string) string { return filepath.Join(k.Root, "pods", uid) }
