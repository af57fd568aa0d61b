package cmd

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"howdah/cmd/options"
	"howdah/detector"
)

// Secrets are what the members of a cluster share and nobody else knows.
type Secrets struct {
	// The passwords of PostgreSQL's roles that howdah uses.
	Superuser, Replication, Rewind, Router options.Secret
	// APIToken lets an operator change things through a member's API.
	APIToken options.Secret
	// GossipKeys are the keys of the gossip; the first encrypts.
	GossipKeys [][]byte
}

// loadSecrets reads a folder of secrets, and generates those that are missing. Sidecars of one machine may share
// the folder and start together: whoever comes first writes a file, all others read it.
// keyFile and tokenFile, where not empty, go before the folder's own.
func loadSecrets(dir, keyFile, tokenFile string) (Secrets, error) {
	var s Secrets
	if err := secretsFolder(dir); err != nil {
		return s, fmt.Errorf("secrets-dir: %w", err)
	}
	var errs []error
	for name, into := range map[string]*options.Secret{
		"superuser": &s.Superuser, "replication": &s.Replication, "rewind": &s.Rewind, "router": &s.Router,
	} {
		secret, err := readOrGenerate(filepath.Join(dir, name), rand.Text)
		*into = secret
		errs = append(errs, err)
	}
	var err error
	if tokenFile != "" {
		s.APIToken, err = readSecretFile(tokenFile)
	} else {
		s.APIToken, err = readOrGenerate(filepath.Join(dir, "api.token"), rand.Text)
	}
	errs = append(errs, err)
	if keyFile == "" {
		keyFile = filepath.Join(dir, "gossip.key")
		errs = append(errs, generateIfMissing(keyFile, gossipKey))
	}
	s.GossipKeys, err = readGossipKeys(keyFile)
	return s, errors.Join(append(errs, err)...)
}

func gossipKey() string {
	key := make([]byte, detector.KeyBytes)
	// It never fails: crypto/rand ends the process instead.
	_, _ = rand.Read(key)
	return base64.StdEncoding.EncodeToString(key)
}

func readGossipKeys(file string) ([][]byte, error) {
	if err := checkMode(file); err != nil {
		return nil, err
	}
	return detector.ReadKeyFile(file)
}

func secretsFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o002 != 0 {
		return fmt.Errorf("%s: its mode %04o lets every user of this machine put files there; chmod o-w %s", dir, mode, dir)
	}
	return nil
}

func readOrGenerate(file string, make func() string) (options.Secret, error) {
	if err := generateIfMissing(file, make); err != nil {
		return "", err
	}
	return readSecretFile(file)
}

// generateIfMissing writes a secret unless the file exists. The file comes into being whole: it is written under
// another name and linked, which fails where somebody else was first.
func generateIfMissing(file string, make func() string) error {
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	temporary := file + ".new-" + rand.Text()
	if err := writeSynced(temporary, make()+"\n"); err != nil {
		return fmt.Errorf("%s is missing and cannot be generated: %w", file, err)
	}
	err := os.Link(temporary, file)
	if err := errors.Join(os.Remove(temporary), syncFolder(filepath.Dir(file))); err != nil {
		return err
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is missing and cannot be generated: %w", file, err)
	}
	return nil
}

func writeSynced(name, text string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// checkMode refuses a file that every user of the machine can read or change.
func checkMode(name string) error {
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o007 != 0 {
		return fmt.Errorf("%s: its mode %04o lets every user of this machine in; chmod o= %s (in Kubernetes: defaultMode: 0440 for the volume)", name, mode, name)
	}
	return nil
}

// readSecretFile returns the content of a file without the newline at its end.
func readSecretFile(name string) (options.Secret, error) {
	if err := checkMode(name); err != nil {
		return "", err
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	text := strings.TrimRight(string(data), "\r\n")
	switch {
	case text == "":
		return "", fmt.Errorf("%s is empty; write the secret into it, or remove it to have one generated", name)
	case strings.ContainsAny(text, "\r\n\x00"):
		return "", fmt.Errorf("%s holds more than one line; want the secret and nothing else", name)
	}
	return options.Secret(text), nil
}
