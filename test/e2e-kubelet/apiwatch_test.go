package e2ekubelet

import (
	"encoding/json"
	"net/http"
	"strconv"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
)

// watch streams changes. What is there already comes first, again for a client that has listed it: nothing can be lost between
// the two then, and to clients an object that they know is no news.
func (s *apiServer) watch(w http.ResponseWriter, r *http.Request, t target) {
	changes, err := s.objects.Watch(t.gvr, t.namespace)
	if err != nil {
		s.answer(w, nil, err)
		return
	}
	defer changes.Stop()
	list, err := s.list(r.Context(), t, selectedName(r))
	if err != nil {
		s.answer(w, nil, err)
		return
	}
	items, err := meta.ExtractList(list)
	if err != nil {
		s.answer(w, nil, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	for _, item := range items {
		if sendEvent(w, watch.Added, item) != nil {
			return
		}
	}
	if r.URL.Query().Get("sendInitialEvents") == "true" && s.sendBookmark(w, t) != nil {
		return
	}
	w.(http.Flusher).Flush()
	for {
		select {
		case <-r.Context().Done():
			return
		case event, ok := <-changes.ResultChan():
			if !ok || named(event.Object, selectedName(r)) && sendEvent(w, event.Type, event.Object) != nil {
				return
			}
			w.(http.Flusher).Flush()
		}
	}
}

// sendBookmark says that all was sent that was there.
func (s *apiServer) sendBookmark(w http.ResponseWriter, t target) error {
	mark, err := scheme.Scheme.New(t.kind())
	if err != nil {
		return err
	}
	object, err := meta.Accessor(mark)
	if err != nil {
		return err
	}
	object.SetResourceVersion(strconv.FormatUint(s.objects.version.Load(), 10))
	object.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	return sendEvent(w, watch.Bookmark, mark)
}

func sendEvent(w http.ResponseWriter, kind watch.EventType, obj runtime.Object) error {
	text, err := encode(obj)
	if err != nil {
		return err
	}
	return json.NewEncoder(w).Encode(metav1.WatchEvent{Type: string(kind), Object: runtime.RawExtension{Raw: text}})
}
