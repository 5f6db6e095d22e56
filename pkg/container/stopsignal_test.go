package container

import "testing"

func TestStopSignal(t *testing.T) {
	for _, tc := range []struct{ client, image, want string }{
		{"", "", "SIGTERM"},
		{"", "SIGUSR1", "SIGUSR1"},
		{"", "usr1", "SIGUSR1"},
		{"", "10", "SIGUSR1"},
		{"", "6", "SIGABRT"},
		{"", "37", "SIGRTMIN+3"},
		{"", "SIGRTMIN+3", "SIGRTMIN+3"},
		{"", "SIGRTMAX-1", "SIGRTMAX-1"},
		{"SIGHUP", "SIGUSR1", "SIGHUP"},
		{"", "SIGNOTHING", "SIGTERM"},
		{"", "0", "SIGTERM"},
		{"", "4711", "SIGTERM"},
	} {
		if got := stopSignal(tc.client, tc.image); got != tc.want {
			t.Errorf("client %q, image %q: got %s, want %s", tc.client, tc.image, got, tc.want)
		}
	}
}
