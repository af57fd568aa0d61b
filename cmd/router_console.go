package cmd

import (
	"errors"
	"strings"

	"howdah/cmd/options"
)

// declareConsole declares the options of the console. That its users and its password go together is the router's to check, but for the password,
// which is not among the router's options before Run.
func (c *Router) declareConsole(s *options.Set) {
	s.Group("The console (database howdah)")
	s.Strings(&c.AdminUsers, "admin-users", "who may use the console", options.Placeholder("NAMES"))
	s.Strings(&c.StatsUsers, "stats-users", "who may look in the console, and no more", options.Placeholder("NAMES"))
	s.String(&c.AdminPasswordFile, "admin-password-file", "a file with the console's password; read at each login", options.Placeholder("FILE"))
	s.Secret(&c.AdminPassword, "admin-password", "the password itself")
	s.Check(func() []options.Problem {
		users, password := len(c.AdminUsers)+len(c.StatsUsers) > 0, c.AdminPassword != "" || c.AdminPasswordFile != ""
		switch {
		case c.AdminPassword != "" && c.AdminPasswordFile != "":
			return []options.Problem{s.Problem("admin-password-file", "the password is given by "+options.EnvironmentName("admin-password")+" too; give one of them")}
		case users && !password:
			return []options.Problem{s.Problem("admin-password-file", "is required with --admin-users and --stats-users")}
		case password && !users:
			return []options.Problem{s.Problem("admin-users", "is required with a password for the console")}
		}
		return nil
	})
}

// errConsolePassword is a password that clients would change before they use it (SASLprep), or none.
var errConsolePassword = errors.New("the console's password must be printable ASCII, at least one character")

// consolePassword returns what gives the password of the console; nil if there is none. A file is read each time, and now, so that a mistake shows at
// the start.
func (c *Router) consolePassword() (func() (string, error), error) {
	if c.AdminPassword == "" && c.AdminPasswordFile == "" {
		return nil, nil
	}
	read := func() (string, error) {
		secret := c.AdminPassword
		if secret == "" {
			var err error
			if secret, err = readSecretFile(c.AdminPasswordFile); err != nil {
				return "", err
			}
		}
		password := secret.Reveal()
		if password == "" || strings.ContainsFunc(password, func(r rune) bool { return r < ' ' || r > '~' }) {
			return "", errConsolePassword
		}
		return password, nil
	}
	_, err := read()
	return read, err
}
