package e2ekubelet

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// podSummary is what /stats/summary says about a pod; the fields are kubelet's.
type podSummary struct {
	PodRef           struct{ Name string }
	Containers       []containerSummary
	CPU              cpuSummary
	Memory           memorySummary
	Network          *networkSummary
	Volume           []volumeSummary
	EphemeralStorage fsSummary  `json:"ephemeral-storage"`
	Processes        processSum `json:"process_stats"`
}

type containerSummary struct {
	Name   string
	CPU    cpuSummary
	Memory memorySummary
	Rootfs fsSummary
	Logs   fsSummary
}

type cpuSummary struct {
	UsageNanoCores       *uint64
	UsageCoreNanoSeconds uint64
}

type memorySummary struct {
	AvailableBytes, UsageBytes, WorkingSetBytes, RSSBytes uint64
}

type networkSummary struct {
	Name             string
	RxBytes, TxBytes uint64
}

type volumeSummary struct {
	Name      string
	UsedBytes uint64
}

type fsSummary struct {
	UsedBytes uint64
}

type processSum struct {
	Count uint64 `json:"process_count"`
}

// nodeSummary is the node's part: the filesystem that images are on, and containers.
type nodeSummary struct {
	Runtime struct{ ImageFs, ContainerFs *nodeFs }
}

type nodeFs struct {
	AvailableBytes, CapacityBytes, UsedBytes *uint64
}

// askSummary is what kubelet says that the node and its pods use.
func (n *node) askSummary(ctx context.Context) (*nodeSummary, []podSummary, error) {
	body, err := n.client.get(ctx, "/stats/summary", nil)
	if err != nil {
		return nil, nil, err
	}
	var all struct {
		Node nodeSummary
		Pods []podSummary
	}
	if err := json.Unmarshal(body, &all); err != nil {
		return nil, nil, fmt.Errorf("decode summary: %w", err)
	}
	return &all.Node, all.Pods, nil
}

// imageFs waits until kubelet tells of the filesystem for images, which is that of containers here.
func (n *node) imageFs(t testing.TB) (found nodeFs) {
	t.Helper()
	eventually(t, "filesystem of images", func() error {
		now, _, err := n.askSummary(t.Context())
		if err != nil {
			return err
		}
		for _, fs := range []*nodeFs{now.Runtime.ImageFs, now.Runtime.ContainerFs} {
			if fs == nil || fs.AvailableBytes == nil || fs.CapacityBytes == nil || fs.UsedBytes == nil {
				return fmt.Errorf("the node's summary is %+v", now)
			}
		}
		found = *now.Runtime.ImageFs
		return nil
	})
	return found
}

// summary is what kubelet says about one pod.
func (p *pod) summary(ctx context.Context) (*podSummary, error) {
	_, all, err := p.node.askSummary(ctx)
	if err != nil {
		return nil, err
	}
	for i := range all {
		if all[i].PodRef.Name == p.name {
			return &all[i], nil
		}
	}
	return nil, fmt.Errorf("the summary of %d pods lacks %s", len(all), p.name)
}

// metrics are the samples of /metrics/cadvisor that are about one pod, by name and container; those of the pod itself have no
// container. Samples of one name, such as those of several interfaces, are added up.
func (p *pod) metrics(ctx context.Context) (map[string]float64, error) {
	body, err := p.node.client.get(ctx, "/metrics/cadvisor", nil)
	if err != nil {
		return nil, err
	}
	found := map[string]float64{}
	for line := range strings.Lines(string(body)) {
		if !strings.Contains(line, `pod="`+p.name+`"`) {
			continue
		}
		sample := sampleLine.FindStringSubmatch(line)
		if sample == nil {
			return nil, fmt.Errorf("%q is no sample", line)
		}
		value, err := strconv.ParseFloat(sample[3], 64)
		if err != nil {
			return nil, fmt.Errorf("value of %q: %w", line, err)
		}
		container := ""
		if label := containerLabel.FindStringSubmatch(sample[2]); label != nil {
			container = label[1]
		}
		found[sample[1]+" "+container] += value
	}
	return found, nil
}

var (
	sampleLine     = regexp.MustCompile(`^(\w+)\{(.*)\} ([^ ]+)( \d+)?\n$`)
	containerLabel = regexp.MustCompile(`(?:^|,)container="([^"]*)"`)
)
