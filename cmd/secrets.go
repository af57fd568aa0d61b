package cmd

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"howdah/cmd/options"
	"howdah/detector"
	"howdah/sidecar/postgres"
)

// Secrets are what the members of a cluster share and nobody else knows.
type Secrets struct {
	// The passwords of PostgreSQL's roles that howdah uses.
	Superuser, Replication, Rewind, Router options.Secret
	// Former are, by the file's name, the passwords below the first line: a server may still have one of them.
	Former map[string][]options.Secret
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
	for _, name := range passwordFiles {
		errs = append(errs, generateIfMissing(filepath.Join(dir, name), rand.Text))
	}
	err := errors.Join(errs...)
	if err == nil {
		err = s.readPasswords(dir)
	}
	errs = []error{err}
	if tokenFile != "" {
		s.APIToken, err = readSecretFile(tokenFile)
	} else {
		file := filepath.Join(dir, "api.token")
		if err = generateIfMissing(file, rand.Text); err == nil {
			s.APIToken, err = readSecretFile(file)
		}
	}
	errs = append(errs, err)
	if keyFile == "" {
		keyFile = filepath.Join(dir, "gossip.key")
		errs = append(errs, generateIfMissing(keyFile, gossipKey))
	}
	s.GossipKeys, err = readGossipKeys(keyFile)
	return s, errors.Join(append(errs, err)...)
}

// passwordFiles are the names of the files that hold passwords of PostgreSQL's roles.
var passwordFiles = []string{"superuser", "replication", "rewind", "router"}

// readPasswords reads the passwords' files of a folder; it generates none. Nothing changes on an error, which names every mistake.
func (s *Secrets) readPasswords(dir string) error {
	read := map[string][]options.Secret{}
	var errs []error
	for _, name := range passwordFiles {
		lines, err := readPasswordFile(filepath.Join(dir, name))
		read[name] = lines
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	s.Superuser, s.Replication, s.Rewind, s.Router = read["superuser"][0], read["replication"][0], read["rewind"][0], read["router"][0]
	s.Former = map[string][]options.Secret{}
	for name, lines := range read {
		if len(lines) > 1 {
			s.Former[name] = lines[1:]
		}
	}
	return nil
}

// inClear are the passwords for package postgres.
func (s Secrets) inClear() postgres.Secrets {
	former := map[string][]string{}
	for name, lines := range s.Former {
		for _, line := range lines {
			former[name] = append(former[name], line.Reveal())
		}
	}
	return postgres.Secrets{
		Superuser: s.Superuser.Reveal(), Replication: s.Replication.Reveal(), Rewind: s.Rewind.Reveal(), Router: s.Router.Reveal(), Former: former,
	}
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
	err := os.MkdirAll(dir, 0o700)
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w; make it, for the user who runs the sidecar: install -d -m 0700 -o USER %s", err, dir)
	}
	if err != nil {
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
	lines, err := readSecretLines(name)
	if err != nil {
		return "", err
	}
	if len(lines) > 1 {
		return "", fmt.Errorf("%s holds more than one line; want the secret and nothing else", name)
	}
	return options.Secret(lines[0]), nil
}

// readPasswordFile returns the lines of a file: the password, then those that it had before.
func readPasswordFile(name string) ([]options.Secret, error) {
	lines, err := readSecretLines(name)
	var all []options.Secret
	for _, line := range lines {
		all = append(all, options.Secret(line))
	}
	return all, err
}

// maxSecretBytes and maxSecretLines bound a file of secrets.
const (
	maxSecretBytes = 16 << 10
	maxSecretLines = 10
)

func readSecretLines(name string) ([]string, error) {
	if err := checkMode(name); err != nil {
		return nil, err
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSecretBytes+1))
	if err != nil {
		return nil, err
	}
	lines, err := secretLines(data)
	if err != nil {
		return nil, fmt.Errorf("%s %w", name, err)
	}
	return lines, nil
}

// secretLines splits the content of a file; at least one line and none that is empty. An error holds nothing of it.
func secretLines(data []byte) ([]string, error) {
	if len(data) > maxSecretBytes {
		return nil, fmt.Errorf("holds more than %d bytes", maxSecretBytes)
	}
	text := strings.TrimRight(string(data), "\r\n")
	if text == "" {
		return nil, errors.New("is empty; write the secret into it, or remove it to have one generated at the next start")
	}
	lines := strings.Split(text, "\n")
	if len(lines) > maxSecretLines {
		return nil, fmt.Errorf("holds more than %d lines", maxSecretLines)
	}
	for i, line := range lines {
		if strings.ContainsAny(line, "\r\x00") {
			return nil, fmt.Errorf("holds a carriage return or a zero byte in line %d; end lines by a line feed alone", i+1)
		}
		if line == "" {
			return nil, fmt.Errorf("holds an empty line %d; want one secret in each line", i+1)
		}
	}
	return lines, nil
}
