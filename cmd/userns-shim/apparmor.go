package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"github.com/containerd/containerd/v2/contrib/apparmor"
	hostapparmor "github.com/containerd/containerd/v2/pkg/apparmor"
)

// appArmorProfile is the name of the profile for RuntimeDefault, which containerd's library writes.
const appArmorProfile = "userns-shim.default"

// appArmorProfiles lists what the kernel has loaded.
const appArmorProfiles = "/sys/kernel/security/apparmor/profiles"

// loadAppArmor loads the default profile and returns its name, which is empty where the host has no AppArmor
// or no apparmor_parser, without which nobody could load a profile.
func loadAppArmor() (string, error) {
	if !hostapparmor.HostSupports() {
		return "", nil
	}
	if err := apparmor.LoadDefaultProfile(appArmorProfile); err != nil {
		return "", fmt.Errorf("load AppArmor profile %s: %w", appArmorProfile, err)
	}
	return appArmorProfile, nil
}

// profileLoaded looks for a profile in a list of the kernel's form, "name (mode)" in each line.
func profileLoaded(list, name string) (bool, error) {
	file, err := os.Open(list)
	if err != nil {
		return false, fmt.Errorf("list AppArmor profiles: %w", err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		line := lines.Text()
		if i := strings.LastIndex(line, " ("); i >= 0 && line[:i] == name {
			return true, nil
		}
	}
	return false, lines.Err()
}
