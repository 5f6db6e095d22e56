package selftest

import (
	"errors"
	"fmt"
	"strings"
)

// report judges what was seen. It is pure.
func report(endpoint string, s seen) Report {
	checks := judgeNode(s)
	for i, pod := range s.pods {
		checks = append(checks, judgePod(i+1, pod)...)
	}
	checks = append(checks, judgePair(s)...)
	checks = append(checks, judgeCleanUp(s))
	r := Report{
		Endpoint: endpoint,
		Runtime:  s.version.GetRuntimeName(),
		Version:  s.version.GetRuntimeVersion(),
		Checks:   checks,
	}
	_, _, failed := r.Count()
	r.OK = failed == 0
	return r
}

// Names are those of all checks, in the order in which a report has them.
func Names() []string {
	var names []string
	for _, c := range report("", seen{}).Checks {
		names = append(names, c.Name)
	}
	return names
}

// expect passes when got is what is wanted.
func expect(name, got, want, detail string) Check {
	return verdict(name, got == want, got, want, detail)
}

// verdict keeps the detail, which explains a failure, of failures only.
func verdict(name string, ok bool, got, want, detail string) Check {
	if ok {
		detail = ""
	}
	return Check{Name: name, OK: ok, Got: got, Want: want, Detail: detail}
}

// succeed passes when err is nil; a failure to see from here is none of the node's.
func succeed(name, got string, err error, want, detail string) Check {
	if errors.Is(err, ErrNotSeen) {
		return skip(name, want, err.Error())
	}
	if err != nil {
		got = err.Error()
	}
	return verdict(name, err == nil, got, want, detail)
}

func skip(name, want, why string) Check {
	return Check{Name: name, Skipped: true, Want: want, Detail: why}
}

func judgeCleanUp(s seen) Check {
	const name, want = "cleanup", "nothing left"
	if s.versionErr != nil || s.version == nil {
		return skip(name, want, "the runtime does not answer, so nothing was made")
	}
	if len(s.left) == 0 {
		return Check{Name: name, OK: true, Got: want, Want: want}
	}
	return verdict(name, false, strings.Join(s.left, "; "), want,
		fmt.Sprintf("The runtime did not remove all that it made. Its log says why; pods of the test are in the namespace %s.", namespace))
}
