package idpool

import (
	"errors"
	"testing"
)

func TestDecodeRecordRefuses(t *testing.T) {
	key := keyOf(131072)
	for name, value := range map[string]string{
		"no JSON":            `{`,
		"nothing":            ``,
		"two":                `{"range":{"start":131072,"length":65536},"state":"allocated","pod":"p","sandboxes":["s"]} {}`,
		"other start":        `{"range":{"start":65536,"length":65536},"state":"allocated","pod":"p","sandboxes":["s"]}`,
		"no length":          `{"range":{"start":131072},"state":"allocated","pod":"p","sandboxes":["s"]}`,
		"beyond uid_t":       `{"range":{"start":131072,"length":4294967295},"state":"allocated","pod":"p","sandboxes":["s"]}`,
		"negative":           `{"range":{"start":131072,"length":-1},"state":"allocated","pod":"p","sandboxes":["s"]}`,
		"no state":           `{"range":{"start":131072,"length":65536},"pod":"p","sandboxes":["s"]}`,
		"no pod":             `{"range":{"start":131072,"length":65536},"state":"allocated","sandboxes":["s"]}`,
		"no sandbox":         `{"range":{"start":131072,"length":65536},"state":"allocated","pod":"p"}`,
		"sandbox twice":      `{"range":{"start":131072,"length":65536},"state":"allocated","pod":"p","sandboxes":["s","s"]}`,
		"empty sandbox":      `{"range":{"start":131072,"length":65536},"state":"allocated","pod":"p","sandboxes":[""]}`,
		"quarantine in use":  `{"range":{"start":131072,"length":65536},"state":"quarantined","pod":"p","sandboxes":["s"]}`,
		"quarantine of none": `{"range":{"start":131072,"length":65536},"state":"quarantined"}`,
		"quarantine of both": `{"range":{"start":131072,"length":65536},"state":"quarantined","pod":"p","name":"n"}`,
		"nameless":           `{"range":{"start":131072,"length":65536},"state":"reserved"}`,
		"named allocation":   `{"range":{"start":131072,"length":65536},"state":"allocated","pod":"p","sandboxes":["s"],"name":"n"}`,
	} {
		if r, err := decodeRecord(key, []byte(value)); !errors.Is(err, ErrCorrupt) || r != nil {
			t.Errorf("%s: decodeRecord = %v, %v, want ErrCorrupt", name, r, err)
		}
	}
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add(keyOf(131072), []byte(`{"range":{"start":131072,"length":65536},"state":"allocated","pod":"p","sandboxes":["s"],"since":"2026-01-02T03:04:05Z"}`))
	f.Add(keyOf(0), []byte(`{"range":{"start":0,"length":1},"state":"reserved","name":"n","sandboxes":["a","b"]}`))
	f.Add(keyOf(65536), []byte(`{"range":{"start":65536,"length":65536},"state":"quarantined","pod":"p"}`))
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		r, err := decodeRecord(key, value)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("error %v is no ErrCorrupt", err)
			}
			return
		}
		encoded, err := r.encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := decodeRecord(keyOf(r.Range.Start), encoded)
		if err != nil || !r.equal(again) {
			t.Fatalf("%s does not come back: %v", encoded, err)
		}
		// A pool with this one record works.
		db := fakeDB{records: map[string][]byte{key: value}}
		p := db.load(t, Options{})
		if a, ok := p.Holder(r.Range.Start); !ok || a.Range != r.Range {
			t.Fatalf("loaded pool holds %v", a)
		}
	})
}

func FuzzDecodeCursor(f *testing.F) {
	f.Add([]byte("0"))
	f.Add([]byte("65535"))
	f.Add([]byte("65536"))
	f.Fuzz(func(t *testing.T, value []byte) {
		slot, err := decodeCursor(value)
		if err == nil && (slot < 0 || slot >= slotCount) {
			t.Fatalf("cursor %q is slot %d", value, slot)
		}
		if err != nil && !errors.Is(err, ErrCorrupt) {
			t.Fatalf("error %v is no ErrCorrupt", err)
		}
	})
}
