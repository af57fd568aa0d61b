package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/zap"
)

// Secrets are the passwords of howdah's roles, in clear. They must be printable ASCII:
// what other characters become in SCRAM depends on the library that prepares them.
type Secrets struct {
	Superuser, Replication, Rewind, Router string
	// Former are, by the secret's name (superuser, replication, rewind, router), passwords that a server may still have,
	// newest first: they are tried where the present one is refused.
	Former map[string][]string
}

// secretOf names the secret that holds a role's password: a file in the secrets directory.
var secretOf = map[string]string{SuperuserRole: "superuser", ReplicationRole: "replication", RewindRole: "rewind", RouterRole: "router"}

// present returns the passwords that are to be in force, by role.
func (s Secrets) present() map[string]string {
	return map[string]string{SuperuserRole: s.Superuser, ReplicationRole: s.Replication, RewindRole: s.Rewind, RouterRole: s.Router}
}

func (s Secrets) validate() error {
	var errs []error
	check := func(name, password string) {
		if password == "" {
			errs = append(errs, fmt.Errorf("secret %s: must not be empty", name))
		}
		if strings.ContainsFunc(password, func(c rune) bool { return c < ' ' || c > '~' }) {
			errs = append(errs, fmt.Errorf("secret %s: only printable ASCII characters are allowed", name))
		}
	}
	for _, role := range []string{SuperuserRole, ReplicationRole, RewindRole, RouterRole} {
		name := secretOf[role]
		check(name, s.present()[role])
		for _, password := range s.Former[name] {
			check(name, password)
		}
	}
	return errors.Join(errs...)
}

// keptFormer is how many passwords of a role are remembered besides those in its file. A member whose file is
// changed later, or a failover to one, may bring a former one back into force.
const keptFormer = 4

// keyring holds what is known about the passwords of howdah's roles. It may be used from several goroutines.
type keyring struct {
	mu  sync.Mutex
	now Secrets
	// known are, by role, the present password, then the former ones; accepted is the one that a server took last.
	known    map[string][]string
	accepted map[string]string
}

func newKeyring(s Secrets) *keyring {
	k := &keyring{known: map[string][]string{}, accepted: map[string]string{}}
	k.set(s)
	return k
}

// set makes s the present passwords. What was known before is tried behind them.
func (k *keyring) set(s Secrets) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for role, password := range s.present() {
		listed := append([]string{password}, s.Former[secretOf[role]]...)
		var all []string
		for i, p := range append(slices.Clone(listed), k.known[role]...) {
			if !slices.Contains(all, p) && (i < len(listed) || len(all) < len(listed)+keptFormer) {
				all = append(all, p)
			}
		}
		k.known[role] = all
	}
	k.now = s
}

// present returns the passwords that are to be in force, all of one moment.
func (k *keyring) present() Secrets {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.now
}

// candidates are the passwords that a role may have: first the one that was accepted last, as the one in force, then
// the present one, then the former ones. So nothing is refused, and logged, while members change one after the other.
func (k *keyring) candidates(role string) []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := slices.Clone(k.known[role])
	if i := slices.Index(all, k.accepted[role]); i > 0 {
		all = slices.Insert(slices.Delete(all, i, i+1), 0, k.accepted[role])
	}
	return all
}

// accept remembers the password that is in force.
func (k *keyring) accept(role, password string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.accepted[role] = password
}

// settled reports whether the present password was the last that was accepted.
func (k *keyring) settled(role string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.accepted[role] == k.known[role][0]
}

// withPassword calls f with one password of the role after the other until a server does not refuse it.
func (p *Postgres) withPassword(role string, f func(password string) error) error {
	var refused error
	for _, password := range p.keys.candidates(role) {
		err := f(password)
		var pgErr *pgconn.PgError
		if errors.As(err, &pgErr) && pgErr.Code == "28P01" { // ERRCODE_INVALID_PASSWORD
			refused = err
			continue
		}
		if err == nil {
			p.keys.accept(role, password)
		}
		return err
	}
	return refused
}

// SetSecrets changes the passwords that howdah's roles are to have: EnsureRoles puts them into force on a primary. The
// former ones are tried from then on where the present one is refused. An error changes nothing.
func (p *Postgres) SetSecrets(s Secrets) error {
	if err := s.validate(); err != nil {
		return err
	}
	p.keys.set(s)
	return nil
}

// HeedPasswords finds out which of the known passwords are in force for a standby, and has its passfile hold the one
// that its upstream accepts. The roles come with the WAL, so the standby's own catalogue says it while it streams;
// from is nil then. Where it does not stream, its upstream is asked. It reports whether the present ones are in force.
func (p *Postgres) HeedPasswords(ctx context.Context, from *Upstream) (settled bool, err error) {
	if from != nil {
		_, err = p.Identify(ctx, *from)
		settled = err == nil && p.keys.settled(ReplicationRole)
	} else {
		settled, err = p.catalogued(ctx, SuperuserRole, ReplicationRole)
	}
	if werr := p.writePassfile(); werr != nil {
		return false, errors.Join(err, werr)
	}
	return settled, err
}

// catalogued compares what the local server's catalogue has for the roles with the known passwords.
func (p *Postgres) catalogued(ctx context.Context, roles ...string) (settled bool, err error) {
	settled = true
	err = p.duties.do(ctx, func(c *pgx.Conn) error {
		for _, role := range roles {
			var stored string
			err := c.QueryRow(ctx, "SELECT coalesce(rolpassword, '') FROM pg_authid WHERE rolname = $1", role).Scan(&stored)
			if err != nil {
				return fmt.Errorf("role %s: %w", role, err)
			}
			known := p.keys.candidates(role)
			i := slices.IndexFunc(known, func(password string) bool { return verifierMatches(stored, password) })
			if i < 0 {
				return unknownPassword(role)
			}
			p.keys.accept(role, known[i])
			settled = settled && p.keys.settled(role)
		}
		return nil
	})
	return settled && err == nil, err
}

// unknownPassword says what to do where no known password is in force.
func unknownPassword(role string) error {
	return fmt.Errorf("role %s has another password than those in the file %q of the secrets directory (%w); %s", role, secretOf[role], ErrPassword, passwordRemedy)
}

const passwordRemedy = "if it was changed, give this member the changed file too, or write the former password below the present one, as a line of its own"

// inForce logs and remembers that EnsureRoles found, or put, the passwords of s in force.
func (p *Postgres) inForce(s Secrets, changed []string) error {
	for role, password := range s.present() {
		p.keys.accept(role, password)
	}
	if len(changed) > 0 {
		slices.Sort(changed)
		p.log.Info("passwords are in force", zap.Strings("roles", changed))
	}
	// A passfile comes with the first Configure; before, there is nothing that it would be for.
	if _, err := os.Stat(p.passfile()); err != nil {
		return nil
	}
	return p.writePassfile()
}
