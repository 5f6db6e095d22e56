package crilog

import (
	"os"
	"strings"
	"testing"
	"time"
)

// record is a line of a log file, read the way that kubelet reads it.
type record struct {
	at     time.Time
	stream Stream
	tag    string
	text   string
}

func parse(t *testing.T, data string) []record {
	t.Helper()
	if data != "" && !strings.HasSuffix(data, "\n") {
		t.Errorf("log ends in a torn record %q", data[strings.LastIndex(data, "\n")+1:])
	}
	var recs []record
	for line := range strings.Lines(data) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
		if len(fields) != 4 {
			t.Fatalf("line %q has %d fields", line, len(fields))
		}
		at, err := time.Parse(time.RFC3339Nano, fields[0])
		if err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		if s := Stream(fields[1]); s != Stdout && s != Stderr {
			t.Fatalf("line %q: stream %q", line, s)
		}
		recs = append(recs, record{at, Stream(fields[1]), fields[2], fields[3]})
	}
	return recs
}

func parseFile(t *testing.T, path string) []record {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, string(data))
}

// texts are the records' texts of one stream, joined as kubelet joins them.
func texts(recs []record, stream Stream) string {
	var b strings.Builder
	for _, r := range recs {
		if r.stream != stream {
			continue
		}
		b.WriteString(r.text)
		if r.tag == "F" {
			b.WriteByte('\n')
		}
	}
	return b.String()
}
