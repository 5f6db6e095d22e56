package network

import (
	"errors"
	"math"
	"net"
	"net/netip"
	"slices"
	"testing"

	gocni "github.com/containerd/go-cni"
	"github.com/google/go-cmp/cmp"
)

func TestNew(t *testing.T) {
	good := Options{BinDirs: []string{"/opt/cni/bin"}, ConfDir: "/etc/cni/net.d"}
	if _, err := New(good); err != nil {
		t.Error(err)
	}
	for _, opts := range []Options{
		{ConfDir: "/etc/cni/net.d"},
		{BinDirs: []string{""}, ConfDir: "/etc/cni/net.d"},
		{BinDirs: []string{"/opt/cni/bin"}},
		{BinDirs: []string{"/opt/cni/bin"}, ConfDir: "/etc/cni/net.d", Prefer: "ipv5"},
	} {
		if _, err := New(opts); err == nil {
			t.Errorf("New(%+v) succeeded", opts)
		}
	}
}

func TestBandwidth(t *testing.T) {
	const burst = math.MaxUint32
	for _, tt := range []struct {
		ingress, egress string
		want            *gocni.BandWidth
	}{
		{"", "", nil},
		{"10M", "", &gocni.BandWidth{IngressRate: 10e6, IngressBurst: burst}},
		{"", "1Gi", &gocni.BandWidth{EgressRate: 1 << 30, EgressBurst: burst}},
		{"1k", "1P", &gocni.BandWidth{IngressRate: 1e3, IngressBurst: burst, EgressRate: 1e15, EgressBurst: burst}},
		{"1.5e6", "1500", &gocni.BandWidth{IngressRate: 15e5, IngressBurst: burst, EgressRate: 1500, EgressBurst: burst}},
	} {
		annotations := map[string]string{}
		if tt.ingress != "" {
			annotations[ingressAnnotation] = tt.ingress
		}
		if tt.egress != "" {
			annotations[egressAnnotation] = tt.egress
		}
		got, err := bandwidthOf(annotations)
		if err != nil || !cmp.Equal(got, tt.want) {
			t.Errorf("%q: %+v, %v, want %+v", annotations, got, err, tt.want)
		}
	}
	for _, bad := range []string{"", "fast", "999", "0", "-1M", "1E", "10Mbit"} {
		if got, err := bandwidthOf(map[string]string{egressAnnotation: bad}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %+v, %v, want %v", bad, got, err, ErrInvalid)
		}
	}
}

func TestPreferred(t *testing.T) {
	v4, v6, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.2")
	for _, tt := range []struct {
		prefer   IPFamily
		in, want []netip.Addr
	}{
		{FamilyIPv4, []netip.Addr{v6, v4, other}, []netip.Addr{v4, v6, other}},
		{FamilyIPv6, []netip.Addr{v4, other, v6}, []netip.Addr{v6, v4, other}},
		{FamilyCNI, []netip.Addr{v6, v4}, []netip.Addr{v6, v4}},
		{FamilyIPv6, []netip.Addr{v4, other}, []netip.Addr{v4, other}},
		{FamilyIPv4, nil, nil},
	} {
		if got := preferred(tt.in, tt.prefer); !slices.Equal(got, tt.want) {
			t.Errorf("preferred(%v, %s) = %v, want %v", tt.in, tt.prefer, got, tt.want)
		}
	}
}

func TestResult(t *testing.T) {
	r := &gocni.Result{Interfaces: map[string]*gocni.Config{
		"veth1": {Mac: "aa:aa:aa:aa:aa:aa"},
		"eth0": {Mac: "bb:bb:bb:bb:bb:bb", Sandbox: "/net", IPConfigs: []*gocni.IPConfig{
			{IP: net.ParseIP("2001:db8::1")}, {IP: net.ParseIP("192.0.2.1")},
		}},
	}}
	got, err := newResult(r, FamilyIPv4)
	if err != nil {
		t.Fatal(err)
	}
	v4, v6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	want := Result{
		IPs: []netip.Addr{v4, v6},
		Interfaces: []Interface{
			{Name: "eth0", MAC: "bb:bb:bb:bb:bb:bb", Sandbox: "/net", IPs: []netip.Addr{v6, v4}},
			{Name: "veth1", MAC: "aa:aa:aa:aa:aa:aa"},
		},
		Raw: []byte("null"),
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	for name, bad := range map[string]map[string]*gocni.Config{
		"no eth0":    {"net1": {IPConfigs: []*gocni.IPConfig{{IP: net.ParseIP("192.0.2.1")}}}},
		"no address": {"eth0": {}},
		"nil":        {"eth0": {IPConfigs: []*gocni.IPConfig{{}}}},
	} {
		if got, err := newResult(&gocni.Result{Interfaces: bad}, FamilyIPv4); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
