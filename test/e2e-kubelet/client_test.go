package e2ekubelet

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// kubeletClient speaks to kubelet's own server.
type kubeletClient struct {
	url  string
	http *http.Client
}

func (c *kubeletClient) get(ctx context.Context, path string, query url.Values) ([]byte, error) {
	return c.do(ctx, http.MethodGet, path, query)
}

// do returns the body of an answer with status 200.
func (c *kubeletClient) do(ctx context.Context, method, path string, query url.Values) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, c.url+path+"?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, body)
	}
	return body, nil
}

// pods are all that kubelet knows, with their status.
func (c *kubeletClient) pods(ctx context.Context) ([]corev1.Pod, error) {
	body, err := c.get(ctx, "/pods", nil)
	if err != nil {
		return nil, err
	}
	var list corev1.PodList
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, fmt.Errorf("decode kubelet's pods: %w", err)
	}
	return list.Items, nil
}

// eventually polls until check returns nil, and fails the test with its last error after patience.
func eventually(t testing.TB, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s: %v", what, patience, err)
		}
		time.Sleep(200 * time.Millisecond)
	}
}
