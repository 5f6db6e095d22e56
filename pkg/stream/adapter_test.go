package stream

import "testing"

// FuzzDecodeTarget holds that what a request asked for comes through cri-streaming as it was, and that nothing else
// is taken for it.
func FuzzDecodeTarget(f *testing.F) {
	f.Add("io@abc", "abc", byte(3))
	f.Add("", "", byte(0))
	f.Add("@", "a@b", byte(15))
	f.Fuzz(func(t *testing.T, target, id string, streams byte) {
		if _, _, err := decodeTarget(target); err == nil && len(target) == 0 {
			t.Error("an empty target is taken for one")
		}
		want := wanted{stdin: streams&1 != 0, stdout: streams&2 != 0, stderr: streams&4 != 0, tty: streams&8 != 0}
		encoded := want.encode(id)
		if id == "" {
			if encoded != "" {
				t.Errorf("no id became %q", encoded)
			}
			return
		}
		got, gotID, err := decodeTarget(encoded)
		if err != nil || got != want || gotID != id {
			t.Errorf("%+v of %q became %+v of %q, %v", want, id, got, gotID, err)
		}
	})
}
