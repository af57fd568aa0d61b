package local

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// User is the account that the processes of a cluster run under.
type User struct {
	Name     string
	UID, GID uint32
	// credential is nil where we are that user already.
	credential *syscall.Credential
}

// Unprivileged returns the user to run PostgreSQL as: the present one, or where that is root, which
// PostgreSQL refuses, the user postgres, else nobody.
func Unprivileged() (User, error) {
	if os.Geteuid() != 0 {
		name := strconv.Itoa(os.Geteuid())
		if u, err := user.Current(); err == nil {
			name = u.Username
		}
		return User{Name: name, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return User{}, fmt.Errorf("user %s: %w", name, err)
		}
		c := &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		return User{Name: name, UID: c.Uid, GID: c.Gid, credential: c}, nil
	}
	return User{}, errors.New("PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody; add one with useradd, or start as another user")
}

// Reaches says why the user cannot get into dir: a folder above it is closed. It looks at the
// permission bits alone.
func (u User) Reaches(dir string) error {
	if u.credential == nil {
		return nil
	}
	for d := filepath.Clean(dir); ; d = filepath.Dir(d) {
		info, err := os.Stat(d)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err == nil && !u.enters(info) {
			return fmt.Errorf("user %s, whom PostgreSQL runs as, cannot get into %s (mode %04o): choose a directory elsewhere, or chmod o+x %s",
				u.Name, d, info.Mode().Perm(), d)
		}
		if d == filepath.Dir(d) {
			return nil
		}
	}
}

func (u User) enters(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok:
		return true
	case st.Uid == u.UID:
		return info.Mode().Perm()&0o100 != 0
	case st.Gid == u.GID:
		return info.Mode().Perm()&0o010 != 0
	}
	return info.Mode().Perm()&0o001 != 0
}

// own makes dir (0700) and gives it to the user.
func (u User) own(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if u.credential == nil {
		return nil
	}
	return os.Chown(dir, int(u.UID), int(u.GID))
}
