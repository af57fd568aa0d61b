package sidecar

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"time"

	"howdah/consul/schema"
	"howdah/sidecar/postgres"
)

// passwords is what the loop knows about the passwords of howdah's roles. It belongs to the loop.
type passwords struct {
	generation uint64 // goes up with each change
	// What is wrong, in words that hold no password: with the files, with the superuser's login, with what is in force.
	files, login, force string
}

// maxTrouble is how much of it goes into the status, in bytes: gossip carries that in one packet.
const maxTrouble = 400

// trouble is what the status says; empty if all is well. What keeps us out of Postgres goes first.
func (p passwords) trouble() string {
	said := cmp.Or(p.login, p.force, p.files)
	if len(said) > maxTrouble {
		said = strings.ToValidUTF8(said[:maxTrouble], "") + "..."
	}
	return said
}

// SetSecrets has Postgres's roles get new passwords while it runs. An error says that nothing has changed.
func (s *Sidecar) SetSecrets(secrets postgres.Secrets) error {
	if !s.running.Load() {
		return errNotRunning
	}
	if err := s.d.Server.SetSecrets(secrets); err != nil {
		return err
	}
	s.loop.post(func() {
		s.loop.passwords.generation++
		wake(s.loop.wakeUpkeep)
		wake(s.loop.wakeProbe)
	})
	return nil
}

// SecretsFiles takes in what is wrong with the files of the passwords, while the former ones stay; nil if they are right.
func (s *Sidecar) SecretsFiles(err error) {
	if !s.running.Load() {
		return
	}
	text := ""
	if err != nil {
		text = "the passwords stay as they were: " + err.Error()
	}
	s.loop.post(func() { s.loop.passwords.files = text })
}

var errNotRunning = errors.New("the sidecar is still starting, or ending")

// heedEvery is how often a standby looks which password is in force while that is not the present one; heedBound is
// how long the upstream may take, which may be dead: then there is other work.
const (
	heedEvery = time.Second
	heedBound = time.Second
)

// heeding is what upkeep remembers of a standby's passwords.
type heeding struct {
	at         schema.Instant
	generation uint64
	settled    bool
	err        error
}

// due reports whether the passwords are to be looked at again.
func (h heeding) due(d duties) bool {
	every := heedEvery
	if h.settled {
		every = slowUpkeep
	}
	return h.at == 0 || h.generation != d.passwords || d.now.Sub(h.at) >= every
}

// heed sees to it that a standby connects with the password that its upstream has, whichever member was told first.
func (u *upkeep) heed(ctx context.Context, d duties) error {
	if !u.heeding.due(d) || !d.streaming && d.from == nil {
		return u.heeding.err
	}
	from := d.from
	if d.streaming {
		from = nil
	}
	ctx, cancel := context.WithTimeout(ctx, heedBound)
	defer cancel()
	settled, err := u.s.d.Server.HeedPasswords(ctx, from)
	u.heeding = heeding{at: d.now, generation: d.passwords, settled: settled, err: err}
	u.tellForce(err)
	return err
}

// tellForce has the status say that no known password is in force. Other failures say nothing about passwords.
func (u *upkeep) tellForce(err error) {
	text := ""
	if errors.Is(err, postgres.ErrPassword) {
		text = err.Error()
	}
	if text != u.toldForce && u.s.loop.post(func() { u.s.loop.passwords.force = text }) {
		u.toldForce = text
	}
}
