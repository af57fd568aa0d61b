package cmd

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"howdah/cmd/options"
	"howdah/consul"
	"howdah/consul/schema"
)

const configEditLong = `Opens the cluster's configuration as YAML in $VISUAL or $EDITOR (vi without either) and writes it when the editor ends.
Mistakes are shown above the text and the editor opens again; what was typed is never lost. A key that is
taken out gets its default again.`

const configEditExample = "howdah config edit --cluster shop"

// ConfigEdit changes the configuration in an editor.
type ConfigEdit struct {
	ConsulAccess
	// Editor is the command that edits a file; empty for $VISUAL, $EDITOR or vi.
	Editor string

	stdio Stdio
	lines *bufio.Reader
}

// NewConfigEdit returns a ConfigEdit with its defaults.
func NewConfigEdit(stdio Stdio) *ConfigEdit { return &ConfigEdit{stdio: stdio} }

// Declare implements Command.
func (c *ConfigEdit) Declare(s *options.Set) {
	c.declare(s)
	s.Group("Editor")
	s.String(&c.Editor, "editor", "the command that edits, if not $VISUAL or $EDITOR", options.Placeholder("COMMAND"))
}

// Validate returns every mistake at once.
func (c *ConfigEdit) Validate() error { return options.Validate(c) }

const editIntro = `# The configuration of cluster %s. Lines that begin with # are left out. An empty file changes nothing.
`

// Run implements Command.
func (c *ConfigEdit) Run(ctx context.Context) error {
	c.Editor = cmp.Or(c.Editor, os.Getenv("VISUAL"), os.Getenv("EDITOR"))
	if c.Editor == "" && !c.stdio.interactive() {
		return errors.New("there is no terminal to edit at: a script uses howdah config set, or names an editor that needs none by --editor")
	}
	client, state, err := c.open(ctx)
	if err != nil {
		return err
	}
	before, err := writeClusterConfig(state.Config.Value)
	if err != nil {
		return err
	}
	file, err := os.CreateTemp("", "howdah-"+c.Cluster+"-*.yaml")
	if err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	text := before
	for remark := ""; ; {
		if text, err = c.edit(ctx, file.Name(), remark, text); err != nil {
			return fmt.Errorf("nothing was changed: %w; what you wrote is in %s", err, file.Name())
		}
		if strings.TrimSpace(text) == "" || text == before {
			fmt.Fprintln(c.stdio.Out, "nothing was changed")
			return os.Remove(file.Name())
		}
		var retry bool
		retry, remark, err = c.write(ctx, client, &state, text)
		switch {
		case err == nil && !retry:
			return os.Remove(file.Name())
		case err != nil:
			return fmt.Errorf("%w; what you wrote is in %s", err, file.Name())
		case !c.again(remark):
			return fmt.Errorf("nothing was changed; what you wrote is in %s", file.Name())
		}
	}
}

// write tries to put text into force. Where another look at it may help, retry is set and remark says why.
func (c *ConfigEdit) write(ctx context.Context, client *consul.Client, state *schema.ClusterState, text string) (retry bool, remark string, err error) {
	after := schema.DefaultClusterConfig()
	after.HBA = nil
	if err := readClusterConfig([]byte(text), &after); err != nil {
		return true, err.Error(), nil
	}
	if err := checkWithMember(ctx, c.stdio, "", *state, after); err != nil {
		return true, err.Error(), nil
	}
	err = changeConfig(ctx, c.stdio, client, *state, after)
	if !errors.Is(err, consul.ErrConflict) {
		return false, "", err
	}
	old := state.Config.Value
	if _, *state, err = c.open(ctx); err != nil {
		return false, "", err
	}
	return true, "somebody else has changed the configuration meanwhile; with your text as it is this would be undone:\n" +
		strings.Join(old.Changes(state.Config.Value), "\n"), nil
}

// edit opens the editor on text with remark above it, and returns what it left, without comments.
func (c *ConfigEdit) edit(ctx context.Context, name, remark, text string) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, editIntro, c.Cluster)
	for line := range strings.Lines(remark) {
		b.WriteString("# ! " + strings.TrimRight(line, "\n") + "\n")
	}
	b.WriteString(text)
	if err := os.WriteFile(name, []byte(b.String()), 0o600); err != nil {
		return "", err
	}
	editor := cmp.Or(c.Editor, "vi")
	// By the shell, because people put options into EDITOR.
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", editor+` "$1"`, "sh", name)
	if f, terminal := c.stdio.In.(*os.File); terminal {
		cmd.Stdin = f
	}
	cmd.Stdout, cmd.Stderr = c.stdio.Out, c.stdio.Err
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("the editor (%s) failed: %w", editor, err)
	}
	left, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	var kept strings.Builder
	for line := range strings.Lines(string(left)) {
		if !strings.HasPrefix(line, "#") {
			kept.WriteString(line)
		}
	}
	return kept.String(), nil
}

// again shows what is wrong and asks whether to go on. The end of the input means no.
func (c *ConfigEdit) again(remark string) bool {
	fmt.Fprintf(c.stdio.Err, "%s\nEdit again? [Y/n] ", remark)
	if c.lines == nil {
		c.lines = bufio.NewReader(c.stdio.In)
	}
	answer, err := c.lines.ReadString('\n')
	if err != nil && !(errors.Is(err, io.EOF) && answer != "") {
		fmt.Fprintln(c.stdio.Err)
		return false
	}
	answer = strings.ToLower(strings.TrimSpace(answer))
	return answer == "" || answer == "y" || answer == "yes"
}
