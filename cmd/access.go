package cmd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/term"

	"howdah/cmd/options"
	"howdah/cmd/statustable"
)

// TokenAccess is how a command finds a cluster that it changes through its members' APIs.
type TokenAccess struct {
	ClusterAccess
	// APITokenFile or APIToken is the token of the members' APIs; at most one.
	APITokenFile string
	APIToken     options.Secret
}

// whereTokenIs is for who has none, or the wrong one.
const whereTokenIs = "it is the file api.token in a member's --secrets-dir"

// declareToken declares the token. needed reports whether it must be there.
func (a *TokenAccess) declareToken(s *options.Set, needed func() bool) {
	s.String(&a.APITokenFile, "api-token-file", "a file with the token of the members' APIs: api.token of their --secrets-dir", options.Placeholder("FILE"))
	s.Secret(&a.APIToken, "api-token", "the token itself")
	s.Check(func() []options.Problem {
		switch {
		case a.APIToken != "" && a.APITokenFile != "":
			return []options.Problem{s.Problem("api-token-file", "the token is given by "+options.EnvironmentName("api-token")+" too; give one of them")}
		case needed() && a.APIToken == "" && a.APITokenFile == "":
			return []options.Problem{s.Problem("api-token-file", "is required: members change nothing without their token; "+whereTokenIs)}
		}
		return nil
	})
}

// token returns the token; empty where none was given.
func (a *TokenAccess) token() (options.Secret, error) {
	if a.APITokenFile == "" {
		return a.APIToken, nil
	}
	token, err := readSecretFile(a.APITokenFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("api-token-file: there is no %s; %s", a.APITokenFile, whereTokenIs)
	case errors.Is(err, fs.ErrPermission):
		return "", fmt.Errorf("api-token-file: %w; become a user who may read it, such as the one that runs the sidecar", err)
	case err != nil:
		return "", fmt.Errorf("api-token-file: %w", err)
	}
	return token, nil
}

// tokenLook returns a view with the token, and a first look through it.
func (a *TokenAccess) tokenLook(ctx context.Context) (*view, statustable.Picture, error) {
	token, err := a.token()
	if err != nil {
		return nil, statustable.Picture{}, err
	}
	v, err := a.view(token)
	if err != nil {
		return nil, statustable.Picture{}, err
	}
	p, err := v.look(ctx)
	return v, p, err
}

// errDeclined is what was not agreed to.
var errDeclined = errors.New("nothing was done: it wants a yes, or --yes")

// interactive reports a person at the keyboard, who can be asked.
func (s Stdio) interactive() bool {
	f, isFile := s.In.(*os.File)
	return isFile && term.IsTerminal(int(f.Fd()))
}

// ask returns the line that is answered to a question.
func (s Stdio) ask(ctx context.Context, question string) (string, error) {
	fmt.Fprint(s.Out, question)
	type answer struct {
		line string
		err  error
	}
	c := make(chan answer, 1) // whoever reads the keyboard cannot be called off; Ctrl-C must not wait for it
	go func() {
		line, err := bufio.NewReader(s.In).ReadString('\n')
		c <- answer{line, err}
	}()
	select {
	case <-ctx.Done():
		return "", context.Cause(ctx)
	case a := <-c:
		if a.err != nil && !errors.Is(a.err, io.EOF) {
			return "", a.err
		}
		return strings.TrimSpace(a.line), nil
	}
}

// agree asks a person for a yes. Without a person it is taken for granted where a script may do so: not for what
// cannot be undone, which wants --yes or a yes on the input.
func (s Stdio) agree(ctx context.Context, yes, undoable bool, question string) error {
	if yes || undoable && !s.interactive() {
		return nil
	}
	line, err := s.ask(ctx, question+" [y/N] ")
	if err != nil {
		return err
	}
	if l := strings.ToLower(line); l != "y" && l != "yes" {
		return errDeclined
	}
	return nil
}
