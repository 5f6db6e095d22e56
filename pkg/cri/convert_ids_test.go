package cri

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

func TestIDRequest(t *testing.T) {
	count := func(text string) map[string]string { return map[string]string{sandbox.AnnotationIDs: text} }
	share := func(name string) map[string]string { return map[string]string{sandbox.AnnotationReservation: name} }
	for name, tc := range map[string]struct {
		annotations map[string]string
		want        sandbox.IDRequest
		ok          bool
	}{
		"none":                 {nil, sandbox.IDRequest{}, true},
		"others":               {map[string]string{"userns-shim.io/other": "x"}, sandbox.IDRequest{}, true},
		"one range":            {count("65536"), sandbox.IDRequest{Count: 65536}, true},
		"two ranges":           {count("131072"), sandbox.IDRequest{Count: 131072}, true},
		"all that could be":    {count("4294836224"), sandbox.IDRequest{Count: 4294836224}, true},
		"the last slot too":    {count("4294901760"), sandbox.IDRequest{}, false},
		"more than there are":  {count("4294967296"), sandbox.IDRequest{}, false},
		"wraps to one range":   {count("18446744073709617152"), sandbox.IDRequest{}, false},
		"zero":                 {count("0"), sandbox.IDRequest{}, false},
		"empty":                {count(""), sandbox.IDRequest{}, false},
		"no multiple":          {count("65535"), sandbox.IDRequest{}, false},
		"negative":             {count("-65536"), sandbox.IDRequest{}, false},
		"signed":               {count("+65536"), sandbox.IDRequest{}, false},
		"octal or not":         {count("065536"), sandbox.IDRequest{}, false},
		"spaces":               {count(" 65536"), sandbox.IDRequest{}, false},
		"a novel":              {count(strings.Repeat("6", 1<<20)), sandbox.IDRequest{}, false},
		"reservation":          {share("team-a"), sandbox.IDRequest{Reservation: "team-a"}, true},
		"nameless reservation": {share(""), sandbox.IDRequest{}, false},
		"path":                 {share("../a"), sandbox.IDRequest{}, false},
		"newline":              {share("a\nb"), sandbox.IDRequest{}, false},
		"both":                 {map[string]string{sandbox.AnnotationIDs: "65536", sandbox.AnnotationReservation: "a"}, sandbox.IDRequest{}, false},
	} {
		got, err := idRequest(tc.annotations)
		if (err == nil) != tc.ok || tc.ok && got != tc.want {
			t.Errorf("%s: %+v, %.200v, want %+v, %t", name, got, err, tc.want, tc.ok)
		}
		if err := grpcError(err); err != nil && (status.Code(err) != codes.InvalidArgument || len(err.Error()) > 300) {
			t.Errorf("%s: %.500v, want InvalidArgument in few words", name, err)
		}
	}
}
