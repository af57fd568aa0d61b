package cmd

import (
	"context"
	"os"
	"reflect"
	"time"

	"go.uber.org/zap"

	"howdah/cmd/options"
	"howdah/sidecar/postgres"
)

// passwordsEvery is how often the passwords' files are read: Kubernetes replaces the files of a secret and signals nobody.
const passwordsEvery = 5 * time.Second

// passwordHolder is who uses the passwords: a sidecar.Sidecar.
type passwordHolder interface {
	SetSecrets(postgres.Secrets) error
	SecretsFiles(error)
}

// watchPasswords gives the passwords in the secrets directory to holder when they change, until ctx ends.
func (c *Sidecar) watchPasswords(ctx context.Context, signals <-chan os.Signal, m member, holder passwordHolder) {
	w := passwordWatch{now: m.secrets, seen: m.secrets, holder: holder, log: m.log, read: func() (s Secrets, err error) {
		err = s.readPasswords(c.SecretsDir)
		return s, err
	}}
	t := time.NewTicker(passwordsEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-signals:
			w.look(true)
		case <-t.C:
			w.look(false)
		}
	}
}

// passwordWatch compares what the files hold with what is used.
type passwordWatch struct {
	now, seen Secrets // in use; seen last
	read      func() (Secrets, error)
	holder    passwordHolder
	log       *zap.Logger
	// failed is the last look's error, said the one that was told last.
	failed, said string
}

// look reads the files. A change counts when a signal says that it is whole, or when it is seen twice: a file
// may just be being written. Whatever is wrong leaves the passwords as they are.
func (w *passwordWatch) look(signalled bool) {
	fresh, err := w.read()
	settled := err == nil && (signalled || samePasswords(fresh, w.seen))
	if err == nil {
		w.seen = fresh
	}
	changed := changedPasswords(w.now, fresh)
	if err == nil && settled && !samePasswords(fresh, w.now) {
		if err = w.holder.SetSecrets(fresh.inClear()); err == nil {
			w.now = fresh
			w.log.Info("passwords read again; the primary puts them into force", zap.Strings("changed", changed))
		}
	}
	text := ""
	if err != nil {
		text = err.Error()
	}
	again := text == w.failed
	w.failed = text
	if text != "" && !signalled && !again {
		return // as above
	}
	w.holder.SecretsFiles(err)
	if text != "" && (signalled || text != w.said) {
		w.log.Error("the passwords stay as they were; correct the files in the secrets directory", zap.Error(err))
	}
	w.said = text
}

// samePasswords compares the passwords of roles, the former ones too.
func samePasswords(a, b Secrets) bool { return reflect.DeepEqual(a.inClear(), b.inClear()) }

// changedPasswords names the files whose first line differs.
func changedPasswords(a, b Secrets) []string {
	names := []string{}
	for _, p := range []struct {
		name string
		a, b options.Secret
	}{
		{"superuser", a.Superuser, b.Superuser}, {"replication", a.Replication, b.Replication}, {"rewind", a.Rewind, b.Rewind}, {"router", a.Router, b.Router},
	} {
		if p.a != p.b {
			names = append(names, p.name)
		}
	}
	return names
}
