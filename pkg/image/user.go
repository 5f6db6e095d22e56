package image

import (
	"strconv"
	"strings"
)

// User is whom an image's config names: a number or a name, never both. The zero User is nobody named.
type User struct {
	UID  *int64
	Name string
}

// ParseUser reads the User of an image config, "user" or "user:group". The group is not told: CRI has no
// field for it.
func ParseUser(user string) User {
	name, _, _ := strings.Cut(user, ":")
	if name == "" {
		return User{}
	}
	if uid, err := strconv.ParseInt(name, 10, 64); err == nil {
		return User{UID: &uid}
	}
	return User{Name: name}
}
