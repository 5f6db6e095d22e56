package e2ekubelet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	clienttesting "k8s.io/client-go/testing"
)

// apiServer serves what a kubelet needs of an API server, out of client-go's object tracker: objects in memory, without
// defaults, validation, admission or access control. It is for volumes, evictions and changes of pods, which static
// pods cannot have.
type apiServer struct {
	objects *tracker
	react   clienttesting.ReactionFunc
	server  *http.Server
	url     string
}

// kinds are those of the resources that kubelet asks for; of any other there are none.
var kinds = map[string]string{
	"configmaps": "ConfigMap", "csidrivers": "CSIDriver", "csinodes": "CSINode", "events": "Event", "leases": "Lease", "nodes": "Node",
	"pods": "Pod", "runtimeclasses": "RuntimeClass", "secrets": "Secret", "serviceaccounts": "ServiceAccount", "services": "Service",
}

// tracker gives each change a version, by which a client tells old from new.
type tracker struct {
	clienttesting.ObjectTracker
	version atomic.Uint64
	// changing is held by who reads an object and then writes it: kubelet's patches are such, and what a test changes between would be lost.
	changing sync.Mutex
}

func (o *tracker) stamp(obj runtime.Object) error {
	object, err := meta.Accessor(obj)
	if err == nil {
		object.SetResourceVersion(strconv.FormatUint(o.version.Add(1), 10))
	}
	return err
}

func (o *tracker) Create(gvr schema.GroupVersionResource, obj runtime.Object, ns string, opts ...metav1.CreateOptions) error {
	return errors.Join(o.stamp(obj), o.ObjectTracker.Create(gvr, obj, ns, opts...))
}

func (o *tracker) Update(gvr schema.GroupVersionResource, obj runtime.Object, ns string, opts ...metav1.UpdateOptions) error {
	return errors.Join(o.stamp(obj), o.ObjectTracker.Update(gvr, obj, ns, opts...))
}

func (o *tracker) Patch(gvr schema.GroupVersionResource, obj runtime.Object, ns string, opts ...metav1.PatchOptions) error {
	return errors.Join(o.stamp(obj), o.ObjectTracker.Patch(gvr, obj, ns, opts...))
}

// startAPIServer listens on the node's loopback.
func startAPIServer(n *node) (*apiServer, error) {
	listener, err := n.World.Listen()
	if err != nil {
		return nil, err
	}
	objects := &tracker{ObjectTracker: clienttesting.NewObjectTracker(scheme.Scheme, scheme.Codecs.UniversalDecoder())}
	s := &apiServer{objects: objects, react: clienttesting.ObjectReaction(objects), url: "http://" + listener.Addr().String()}
	s.server = &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = s.server.Serve(listener) }() // until close
	return s, nil
}

func (s *apiServer) close() error { return s.server.Close() }

// target is what a request is about.
type target struct {
	gvr                     schema.GroupVersionResource
	namespace, name, subres string
}

// kind is that of the target's objects.
func (t target) kind() schema.GroupVersionKind {
	return t.gvr.GroupVersion().WithKind(kinds[t.gvr.Resource])
}

// parseTarget reads /api/v1/[namespaces/NS/]RESOURCE[/NAME[/SUBRESOURCE]], or the same below /apis/GROUP/VERSION.
func parseTarget(path string) (target, bool) {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	var t target
	switch {
	case len(parts) > 2 && parts[0] == "api":
		t.gvr.Version, parts = parts[1], parts[2:]
	case len(parts) > 3 && parts[0] == "apis":
		t.gvr.Group, t.gvr.Version, parts = parts[1], parts[2], parts[3:]
	default:
		return target{}, false
	}
	if parts[0] == "namespaces" && len(parts) > 2 {
		t.namespace, parts = parts[1], parts[2:]
	}
	parts = append(parts, "", "")
	t.gvr.Resource, t.name, t.subres = parts[0], parts[1], parts[2]
	return t, kinds[t.gvr.Resource] != ""
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	t, ok := parseTarget(r.URL.Path)
	if !ok {
		s.answer(w, nil, apierrors.NewNotFound(schema.GroupResource{Resource: r.URL.Path}, ""))
		return
	}
	if watching := r.URL.Query().Get("watch"); watching == "true" || watching == "1" {
		s.watch(w, r, t)
		return
	}
	obj, err := s.do(r, t)
	s.answer(w, obj, err)
}

func (s *apiServer) do(r *http.Request, t target) (runtime.Object, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	switch {
	case r.Method == http.MethodGet && t.name == "":
		return s.list(r.Context(), t, selectedName(r))
	case r.Method == http.MethodGet:
		return s.reaction(clienttesting.NewGetAction(t.gvr, t.namespace, t.name))
	case r.Method == http.MethodPatch:
		kind := types.PatchType(r.Header.Get("Content-Type"))
		return s.reaction(clienttesting.NewPatchSubresourceAction(t.gvr, t.namespace, t.name, kind, body, t.subres))
	case r.Method == http.MethodDelete:
		_, err := s.reaction(clienttesting.NewDeleteAction(t.gvr, t.namespace, t.name))
		return &metav1.Status{Status: metav1.StatusSuccess}, err
	case t.gvr.Resource == "serviceaccounts" && t.subres == "token":
		return token(body)
	}
	obj, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, nil)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if r.Method == http.MethodPut {
		return s.reaction(clienttesting.NewUpdateSubresourceAction(t.gvr, t.subres, t.namespace, obj))
	}
	return s.reaction(clienttesting.NewCreateAction(t.gvr, t.namespace, obj))
}

func (s *apiServer) reaction(action clienttesting.Action) (runtime.Object, error) {
	s.objects.changing.Lock()
	defer s.objects.changing.Unlock()
	_, obj, err := s.react(action)
	return obj, err
}

// token answers a request for a token with one that is none.
func token(body []byte) (runtime.Object, error) {
	var request authenticationv1.TokenRequest
	if err := json.Unmarshal(body, &request); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	request.Status = authenticationv1.TokenRequestStatus{Token: "a-token", ExpirationTimestamp: metav1.NewTime(time.Now().Add(time.Hour))}
	return &request, nil
}

// selectedName is that of the only object of interest; kubelet selects pods by its own name besides, and there are no others.
func selectedName(r *http.Request) string {
	_, name, _ := strings.Cut(r.URL.Query().Get("fieldSelector"), "metadata.name=")
	return name
}

func (s *apiServer) list(_ context.Context, t target, name string) (runtime.Object, error) {
	list, err := s.objects.List(t.gvr, t.kind(), t.namespace)
	if err != nil {
		return nil, err
	}
	items, err := meta.ExtractList(list)
	if err != nil {
		return nil, err
	}
	var selected []runtime.Object
	for _, item := range items {
		if named(item, name) {
			selected = append(selected, item)
		}
	}
	if access, err := meta.ListAccessor(list); err == nil {
		access.SetResourceVersion(strconv.FormatUint(s.objects.version.Load(), 10))
	}
	return list, meta.SetList(list, selected)
}

func named(obj runtime.Object, name string) bool {
	object, err := meta.Accessor(obj)
	return err == nil && (name == "" || object.GetName() == name)
}

func (s *apiServer) answer(w http.ResponseWriter, obj runtime.Object, err error) {
	code := http.StatusOK
	if err != nil {
		var known apierrors.APIStatus
		if !errors.As(err, &known) {
			known = apierrors.NewInternalError(err)
		}
		status := known.Status()
		obj, code = &status, int(status.Code)
	}
	text, err := encode(obj)
	if err != nil {
		text, code = []byte(err.Error()), http.StatusInternalServerError
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(text)
}

// encode writes an object with its kind, which those of the tracker do not carry.
func encode(obj runtime.Object) ([]byte, error) {
	if _, ok := obj.(*metav1.Status); ok {
		return runtime.Encode(scheme.Codecs.LegacyCodec(schema.GroupVersion{Version: "v1"}), obj)
	}
	found, _, err := scheme.Scheme.ObjectKinds(obj)
	if err != nil {
		return nil, fmt.Errorf("encode object: %w", err)
	}
	return runtime.Encode(scheme.Codecs.LegacyCodec(found[0].GroupVersion()), obj)
}
