package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestProfileLoaded(t *testing.T) {
	list := filepath.Join(t.TempDir(), "profiles")
	if err := os.WriteFile(list, []byte("docker-default (enforce)\nname (with) brackets (complain)\nusr.sbin.x (unconfined)\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"docker-default": true, "name (with) brackets": true, "usr.sbin.x": true,
		"docker": false, "name": false, "docker-default (enforce)": false, "": false,
	} {
		if got, err := profileLoaded(list, name); err != nil || got != want {
			t.Errorf("profile %q: %t, %v, want %t", name, got, err, want)
		}
	}
	if _, err := profileLoaded(list+".missing", "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no list: %v", err)
	}
}

// TestLoadAppArmor loads the profile for real where the host has AppArmor.
func TestLoadAppArmor(t *testing.T) {
	name, err := loadAppArmor()
	if err != nil || name == "" {
		if err != nil {
			t.Error(err)
		}
		return
	}
	if loaded, err := profileLoaded(appArmorProfiles, name); err != nil || !loaded {
		t.Errorf("profile %s: loaded %t, %v", name, loaded, err)
	}
}
