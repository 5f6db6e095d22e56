package labimage

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// DefaultHost is the directory name that hosts.toml lookups fall back to for every registry
// without a directory of its own.
const DefaultHost = "_default"

// WriteHosts writes certsDir/host/hosts.toml, which sends pulls of host ("127.0.0.1:5000",
// "registry.example", DefaultHost) to the registry at addr over plain HTTP and nowhere else.
func WriteHosts(certsDir, host, addr string) error {
	dir := filepath.Join(certsDir, host)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make hosts directory for %s: %w", host, err)
	}
	var text strings.Builder
	if host != DefaultHost {
		// Without a server line the client would go on to https://host after the mirror.
		fmt.Fprintf(&text, "server = \"http://%s\"\n\n", addr)
	}
	fmt.Fprintf(&text, "[host.\"http://%s\"]\n  capabilities = [\"pull\", \"resolve\"]\n", addr)
	if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(text.String()), 0o644); err != nil {
		return fmt.Errorf("write hosts.toml for %s: %w", host, err)
	}
	return nil
}
