package engine

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func FuzzDecodeAuth(f *testing.F) {
	for _, plain := range []string{"user:password", "user:pass:word", ":", "user", "", "user:password\x00\x00", "\xff:\xfe"} {
		f.Add(base64.StdEncoding.EncodeToString([]byte(plain)))
	}
	f.Add("!!!")
	f.Fuzz(func(t *testing.T, auth string) {
		username, password, err := decodeAuth(auth)
		if err != nil {
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("%q: %v is no InvalidArgument", auth, err)
			}
			if len(auth) > 8 && strings.Contains(err.Error(), auth) {
				t.Errorf("the error tells the credentials: %v", err)
			}
			return
		}
		plain, err := base64.StdEncoding.DecodeString(auth)
		if err != nil || strings.Contains(username, ":") || !strings.HasPrefix(string(plain), username+":"+password) {
			t.Errorf("%q became the user %q and the password %q", plain, username, password)
		}
	})
}
