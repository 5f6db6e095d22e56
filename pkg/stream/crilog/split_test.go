package crilog

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// pieces splits the parts of one stream and notes each record as tag + text.
func pieces(maxBytes int, parts ...string) []string {
	s := splitter{max: maxBytes}
	var got []string
	emit := func(tag byte, text []byte) { got = append(got, string(tag)+string(text)) }
	for _, p := range parts {
		s.feed([]byte(p), emit)
	}
	s.flush(emit)
	return got
}

func TestSplit(t *testing.T) {
	for _, tc := range []struct {
		name  string
		parts []string
		want  []string
	}{
		{"lines", []string{"a\nb\n"}, []string{"Fa", "Fb"}},
		{"empty lines", []string{"\n\na\n\n"}, []string{"F", "F", "Fa", "F"}},
		{"nothing", []string{""}, nil},
		{"line over parts", []string{"a", "b", "c\nd\n"}, []string{"Fabc", "Fd"}},
		{"no last line feed", []string{"a\nb"}, []string{"Fa", "Pb"}},
		{"exactly the limit", []string{"12345678\n"}, []string{"F12345678"}},
		{"one more", []string{"123456789\n"}, []string{"P12345678", "F9"}},
		{"twice the limit", []string{"1234567812345678\n"}, []string{"P12345678", "F12345678"}},
		{"limit before the end is known", []string{"12345678", "\n"}, []string{"F12345678"}},
		{"limit, then more", []string{"12345678", "9", "\n"}, []string{"P12345678", "F9"}},
		{"limit at the end of the stream", []string{"12345678"}, []string{"P12345678"}},
		{"terminal line ends", []string{"a\r\nb\r\n"}, []string{"Fa", "Fb"}},
		{"carriage return over parts", []string{"a\r", "\nb\r", "c\n"}, []string{"Fa", "Fb\rc"}},
		{"carriage return at the limit", []string{"12345678\r", "\n"}, []string{"F12345678"}},
		{"carriage return at the limit, then more", []string{"12345678\r", "x\n"}, []string{"P12345678", "F\rx"}},
		{"two carriage returns", []string{"a\r\r\n"}, []string{"Fa\r"}},
		{"carriage return at the end of the stream", []string{"12345678\r"}, []string{"P12345678", "P\r"}},
		{"bytes that are no text", []string{"\x00\xff\xfe\n"}, []string{"F\x00\xff\xfe"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := pieces(8, tc.parts...); !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// FuzzSplit holds that records give the input back, that no text exceeds the limit,
// and that the way in which input arrives does not show in the records.
func FuzzSplit(f *testing.F) {
	f.Add([]byte("hello\r\nworld"), uint8(3), uint8(4))
	f.Add([]byte("\r\r\n\n\r"), uint8(0), uint8(1))
	f.Add([]byte(strings.Repeat("x", 40)+"\n"), uint8(7), uint8(20))
	f.Fuzz(func(t *testing.T, input []byte, limit, chunk uint8) {
		maxBytes, size := int(limit)%32+1, int(chunk)%32+1
		var parts []string
		for part := range slices.Chunk(input, size) {
			parts = append(parts, string(part))
		}
		got := pieces(maxBytes, parts...)
		if whole := pieces(maxBytes, string(input)); !slices.Equal(got, whole) {
			t.Fatalf("in parts of %d: %q, in one: %q", size, got, whole)
		}
		var joined bytes.Buffer
		for _, p := range got {
			if len(p)-1 > maxBytes {
				t.Fatalf("record %q exceeds %d bytes", p, maxBytes)
			}
			joined.WriteString(p[1:])
			if p[0] == tagFull {
				joined.WriteByte('\n')
			}
		}
		if want := bytes.ReplaceAll(input, []byte("\r\n"), []byte("\n")); !bytes.Equal(joined.Bytes(), want) {
			t.Fatalf("joined %q, want %q (records %q)", joined.Bytes(), want, got)
		}
	})
}

func BenchmarkSplit(b *testing.B) {
	for _, line := range []int{20, 200, 8000} {
		b.Run(fmt.Sprint(line), func(b *testing.B) {
			input := bytes.Repeat([]byte(strings.Repeat("x", line-1)+"\n"), 32<<10/line)
			s := splitter{max: DefaultMaxLineBytes}
			b.SetBytes(int64(len(input)))
			for b.Loop() {
				s.feed(input, func(byte, []byte) {})
			}
		})
	}
}
