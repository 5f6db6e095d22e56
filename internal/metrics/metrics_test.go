package metrics

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestServe(t *testing.T) {
	hour := time.Hour
	m := New("v1", func() PoolStats {
		return PoolStats{
			Segments: []Segment{
				{Name: "pool", Capacity: 4, Free: 1, Allocated: 2, Quarantined: 1, Reserved: 8, Leaked: 9, LargestFreeIDs: 65536, OldestQuarantine: 3 * time.Second, OldestHeld: 2 * time.Second, PredictedEmpty: &hour},
				{Name: "kubelet", Capacity: 3},
				{Name: "external", Allocated: 10, Waiting: 6},
			},
			LeaksFound: map[string]uint64{"pin": 9}, LeaksRepaired: map[string]uint64{"pin": 8},
			Acquired: 5, Claimed: 6, EarlyReleases: 7, ClaimedFromQuarantine: 3, Released: 11,
		}
	})
	m.ObserveRequest("RunPodSandbox", "OK", 30*time.Millisecond)
	m.ObserveCommit(time.Millisecond, nil)
	m.ObserveLease(5*time.Microsecond, "pod", "")
	m.ObserveLease(time.Second, "", "exhausted")
	m.ObserveCommit(time.Millisecond, errors.New("disk"))
	m.ObserveForeign(ForeignScan{Owners: map[string]int{"subuid": 3, "lxc": 0}, Failed: []string{"name-service"}, Took: 2 * time.Second})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.Serve(ctx, listener, nil) }()
	resp, err := http.Get("http://" + listener.Addr().String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`userns_shim_build_info{version="v1"} 1`,
		`userns_shim_idpool_capacity_ranges{segment="pool"} 4`,
		`userns_shim_idpool_ranges{segment="pool",state="allocated"} 2`,
		`userns_shim_idpool_ranges{segment="pool",state="quarantined"} 1`,
		`userns_shim_idpool_leaks_found_total{kind="pin"} 9`,
		`userns_shim_idpool_leaks_repaired_total{kind="pin"} 8`,
		`userns_shim_idpool_ranges{segment="pool",state="leaked"} 9`,
		`userns_shim_idpool_ranges{segment="pool",state="external"} 0`,
		`userns_shim_idpool_ranges{segment="external",state="external"} 10`,
		`userns_shim_idpool_ranges{segment="external",state="allocated"} 0`,
		`userns_shim_idpool_predicted_empty_seconds{segment="pool"} 3600`,
		`userns_shim_idpool_predicted_empty_seconds{segment="kubelet"} +Inf`,
		`userns_shim_idpool_largest_free_ids{segment="pool"} 65536`,
		`userns_shim_idpool_oldest_quarantine_age_seconds{segment="pool"} 3`,
		`userns_shim_idpool_oldest_held_age_seconds{segment="pool"} 2`,
		`userns_shim_idpool_oldest_held_age_seconds{segment="external"} 0`,
		`userns_shim_idpool_ranges{segment="external",state="waiting"} 6`,
		`userns_shim_idpool_ranges{segment="external",state="quarantined"} 0`,
		`userns_shim_idpool_allocations_total{source="claim"} 6`,
		`userns_shim_idpool_claims_from_quarantine_total 3`,
		`userns_shim_idpool_releases_total 11`,
		`userns_shim_idpool_quarantine_early_releases_total 7`,
		`userns_shim_idpool_allocation_duration_seconds_count 2`,
		`userns_shim_idpool_allocation_failures_total{reason="exhausted"} 1`,
		`userns_shim_idpool_allocation_failures_total{reason="io"} 0`,
		`userns_shim_idpool_conflicts_total{with="pod"} 1`,
		`userns_shim_idpool_conflicts_total{with="kernel"} 0`,
		`userns_shim_cri_request_duration_seconds_count{code="OK",method="RunPodSandbox"} 1`,
		`userns_shim_state_commit_duration_seconds_count{outcome="error"} 1`,
		`userns_shim_idpool_foreign_owners{kind="subuid"} 3`,
		`userns_shim_idpool_foreign_owners{kind="namespace"} 0`,
		`userns_shim_idpool_foreign_scan_failures_total{source="name-service"} 1`,
		`userns_shim_idpool_foreign_scan_failures_total{source="lxc"} 0`,
		`userns_shim_idpool_foreign_scan_duration_seconds 2`,
	} {
		if !strings.Contains(string(body), want+"\n") {
			t.Errorf("no line %q", want)
		}
	}
	problems, err := testutil.GatherAndLint(m.registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("metric %s: %s", p.Metric, p.Text)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
