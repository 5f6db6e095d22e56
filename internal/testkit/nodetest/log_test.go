package nodetest

import "testing"

func TestParseLog(t *testing.T) {
	const at = "2026-01-02T03:04:05.678901234Z"
	log, err := parseLog(at + " stdout P first \n" + at + " stderr F oops\n" + at + " stdout F  half\n" + at + " stdout F \n")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := log.Stdout(), "first  half\n\n"; got != want {
		t.Errorf("stdout is %q, want %q", got, want)
	}
	if got, want := log.Stderr(), "oops\n"; got != want {
		t.Errorf("stderr is %q, want %q", got, want)
	}
	for _, bad := range []string{
		"plain text\n",
		at + " stdout F no newline",
		at + " stdin F text\n",
		at + " stdout X text\n",
		"yesterday stdout F text\n",
		"\n",
	} {
		if _, err := parseLog(bad); err == nil {
			t.Errorf("parseLog(%q) takes it", bad)
		}
	}
}
