package image

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// Normalize returns the full form of a reference as a client writes it: "busybox" becomes
// "docker.io/library/busybox:latest", and of a reference with both, the digest counts.
// A malformed one is an error that wraps errdefs.ErrInvalidArgument.
func Normalize(ref string) (string, error) {
	named, err := parse(ref)
	if err != nil {
		return "", err
	}
	return named.String(), nil
}

func parse(ref string) (reference.Named, error) {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return nil, fmt.Errorf("image reference %q: %w: %w", ref, err, errdefs.ErrInvalidArgument)
	}
	return named, nil
}

// RecordNames returns the names under which a pulled image is kept: its id, its tag where ref has one,
// and its digest reference.
func RecordNames(ref string, target digest.Digest, id string) ([]string, error) {
	named, err := parse(ref)
	if err != nil {
		return nil, err
	}
	byDigest, err := reference.WithDigest(reference.TrimNamed(named), target)
	if err != nil {
		return nil, fmt.Errorf("image reference %q with digest %s: %w", ref, target, err)
	}
	names := []string{id, byDigest.String()}
	if tagged, ok := named.(reference.NamedTagged); ok {
		names = append(names, tagged.String())
	}
	return names, nil
}

// SplitName returns the name of an image record as a tag or as a digest reference, whichever it is.
// Both are empty for other names, such as ids.
func SplitName(name string) (tag, byDigest string) {
	parsed, err := reference.ParseAnyReference(name)
	if err != nil {
		return "", ""
	}
	if _, ok := parsed.(reference.Named); !ok {
		return "", "" // an id
	}
	switch parsed.(type) {
	case reference.Canonical:
		return "", parsed.String()
	case reference.Tagged:
		return parsed.String(), ""
	}
	return "", ""
}

// Find returns the index of the image that ref names: a whole id, a tag or digest reference in short or
// full form, or a prefix of one id only. A prefix of several is an error that wraps
// errdefs.ErrInvalidArgument, and an image that is not there errdefs.ErrNotFound.
func Find(images []Info, ref string) (int, error) {
	for i, img := range images {
		if img.ID == ref {
			return i, nil
		}
	}
	if i, ok := findName(images, ref); ok {
		return i, nil
	}
	found := -1
	if hex := strings.TrimPrefix(ref, string(digest.Canonical)+":"); isHex(hex) {
		for i, img := range images {
			if !strings.HasPrefix(strings.TrimPrefix(img.ID, string(digest.Canonical)+":"), hex) {
				continue
			}
			if found >= 0 {
				return -1, fmt.Errorf("image id %s is short of %s and %s: %w", ref, images[found].ID, img.ID, errdefs.ErrInvalidArgument)
			}
			found = i
		}
	}
	if found < 0 {
		return -1, fmt.Errorf("image %q: %w", ref, errdefs.ErrNotFound)
	}
	return found, nil
}

func findName(images []Info, ref string) (int, bool) {
	full, err := Normalize(ref)
	if err != nil {
		return -1, false
	}
	for i, img := range images {
		for _, names := range [][]string{img.RepoTags, img.RepoDigests} {
			for _, name := range names {
				if name == full {
					return i, true
				}
			}
		}
	}
	return -1, false
}

// isHex says whether s can be the start of a sha256 digest.
func isHex(s string) bool {
	return s != "" && len(s) <= digest.Canonical.Size()*2 && strings.Trim(s, "0123456789abcdef") == ""
}
