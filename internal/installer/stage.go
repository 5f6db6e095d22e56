package installer

import (
	"fmt"
	"os"
	"path/filepath"
)

// stageDir is where a node has the programs that install it, until they are installed.
const stageDir = "/var/lib/userns-shim/install/stage"

// Stage copies the programs beside the one that runs, and config if it is not empty, to the node, and returns
// their directory there.
func Stage(root, config string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	files := map[string]string{}
	for _, name := range programs {
		files[name] = filepath.Join(filepath.Dir(self), name)
	}
	if config != "" {
		files["config.yaml"] = config
	}
	for name, source := range files {
		data, err := os.ReadFile(source)
		if err != nil {
			return "", fmt.Errorf("read what to install: %w", err)
		}
		if err := (host{root}).write(filepath.Join(stageDir, name), data, 0o755); err != nil {
			return "", err
		}
	}
	return stageDir, nil
}
