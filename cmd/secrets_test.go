package cmd

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestMissingSecretsAreGeneratedOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "secrets")
	// Three sidecars of one machine start together: all have the same secrets in the end.
	all := make([]Secrets, 3)
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() {
			var err error
			if all[i], err = loadSecrets(dir, "", ""); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	first := all[0]
	for _, s := range all[1:] {
		if s.Superuser != first.Superuser || s.Replication != first.Replication || s.Rewind != first.Rewind || s.Router != first.Router ||
			s.APIToken != first.APIToken || string(s.GossipKeys[0]) != string(first.GossipKeys[0]) {
			t.Fatal("two sidecars have different secrets")
		}
	}
	seen := map[string]bool{}
	for _, s := range []string{first.Superuser.Reveal(), first.Replication.Reveal(), first.Rewind.Reveal(), first.Router.Reveal(), first.APIToken.Reveal()} {
		if len(s) < 20 || seen[s] {
			t.Error("a secret is short, or stands for two things")
		}
		seen[s] = true
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o", e.Name(), info.Mode().Perm())
		}
		names = append(names, e.Name())
	}
	if got := strings.Join(names, " "); got != "api.token gossip.key replication rewind router superuser" {
		t.Errorf("the folder holds %s", got)
	}
}

func TestSecretsThatAreThereAreNotTouched(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
	}
	write("superuser", "given\r\n", 0o440)
	if s, err := loadSecrets(dir, "", ""); err != nil || s.Superuser.Reveal() != "given" {
		t.Errorf("got %q, %v", s.Superuser.Reveal(), err)
	}
	for name, c := range map[string]struct {
		file, text string
		mode       os.FileMode
		want       string
	}{
		"readable by all": {"superuser", "hush", 0o644, "chmod o= "},
		"empty":           {"superuser", "\n", 0o600, "is empty"},
		"two tokens":      {"api.token", "hush\nhush\n", 0o600, "more than one line"},
		"an empty line":   {"superuser", "hush\n\nhush\n", 0o600, "an empty line 2"},
		"too many":        {"superuser", strings.Repeat("hush\n", 11), 0o600, "more than 10 lines"},
		"CR/LF":           {"superuser", "hush\r\nhush\r\n", 0o600, "a carriage return or a zero byte in line 1"},
		"key too short":   {"gossip.key", "aHVzaA==\n", 0o600, "holds 4 bytes, want 32"},
		"no key":          {"gossip.key", "hush!\n", 0o600, "is not base64"},
		"key for all":     {"gossip.key", "aHVzaA==\n", 0o604, "its mode 0604"},
	} {
		t.Run(name, func(t *testing.T) {
			write("superuser", "given", 0o600)
			write(c.file, c.text, c.mode)
			_, err := loadSecrets(dir, "", "")
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hush") {
				t.Errorf("got %v", err)
			}
			if data, readErr := os.ReadFile(filepath.Join(dir, c.file)); readErr != nil || string(data) != c.text {
				t.Errorf("the file was changed to %q, %v", data, readErr)
			}
			if err := os.Remove(filepath.Join(dir, c.file)); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestFilesNamedGoBeforeTheFolders(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	token := filepath.Join(elsewhere, "token")
	if err := os.WriteFile(token, []byte("the token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := loadSecrets(dir, "", token)
	if err != nil || s.APIToken.Reveal() != "the token" {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "api.token")); err == nil {
		t.Error("a token was generated that nobody uses")
	}
	if _, err := loadSecrets(dir, filepath.Join(elsewhere, "missing"), token); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("got %v", err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := loadSecrets(dir, "", token); err == nil || !strings.Contains(err.Error(), "chmod o-w") {
		t.Errorf("got %v", err)
	}
}

// FuzzSecretLines holds what is read to what was written, and every error to hold nothing of it.
func FuzzSecretLines(f *testing.F) {
	for _, seed := range []string{"", "\n", "hush", "hush\n", "hush\r\n", "new\nold\n", "new\r\nold", "\nhush", "hush\n\nhush", "hu\x00sh", strings.Repeat("x", maxSecretBytes+1)} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		lines, err := secretLines(data)
		if err != nil {
			if lines != nil || len(err.Error()) > 200 {
				t.Errorf("%d lines with %v", len(lines), err)
			}
			return
		}
		if got := strings.Join(lines, "\n"); got == "" || got != strings.TrimRight(string(data), "\r\n") {
			t.Errorf("read %q of %q", lines, data)
		}
		for _, line := range lines {
			if line == "" || strings.ContainsAny(line, "\r\n\x00") {
				t.Errorf("line %q", line)
			}
		}
	})
}
