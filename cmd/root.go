package cmd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"howdah/cmd/options"
)

// Command is one of howdah's commands: its exported fields are its options.
type Command interface {
	options.Declarer
	// Run does the work until it is done or ctx ends; an end by ctx in order is no error.
	Run(ctx context.Context) error
}

// entry is a command with what the help says about it. The example is lines as a person types them.
type entry struct {
	name, short, long, example string
	command                    Command
}

// argued is a command that takes words besides its options.
type argued interface {
	// ArgumentsUse is how the help shows them ("NAME").
	ArgumentsUse() string
	// Arguments takes them, before the options are loaded. An error says what is wanted.
	Arguments(words []string) error
}

// reloadable is a command that reads its options again while it runs.
type reloadable interface {
	// LoadAgain gets what loads another command of the same kind from the same sources.
	LoadAgain(load func(Command) error)
}

// parent is a command that has commands of its own.
type parent interface{ Commands() []entry }

// commands are all commands, with their defaults: those that run a cluster, those that look at one, those that change one.
func commands(stdio Stdio) []entry {
	return []entry{
		{"demo", "run a whole cluster on this machine", demoLong, demoExample, NewDemo(stdio)},
		{"launch", "run Postgres under the fence of the lease", launchLong, launchExample, NewLaunch(stdio)},
		{"sidecar", "keep one member's Postgres in its place in the cluster", sidecarLong, sidecarExample, NewSidecar(stdio)},
		{"router", "send PostgreSQL sessions to the right server", routerLong, routerExample, NewRouter(stdio)},
		{"status", "show the cluster", statusLong, statusExample, NewStatus(stdio)},
		{"why", "say why the primary is who it is, or why a member may not stand", whyLong, whyExample, NewWhy(stdio)},
		{"history", "show who was the primary, and why", historyLong, historyExample, NewHistory(stdio)},
		{"switchover", "make another member the primary, in order", switchoverLong, switchoverExample, NewSwitchover(stdio)},
		{"failover", "make a member the primary while there is none", failoverLong, failoverExample, NewFailover(stdio)},
		{"config", "show or change the cluster's configuration", configLong, configExample, configGroup{NewConfigShow(stdio)}},
		{"reload", "have members read their options and configuration files again", reloadLong, reloadExample, NewReload(stdio)},
		{"restart", "restart Postgres, one member after the other", restartLong, restartExample, NewRestart(stdio)},
		{"reinit", "clone a member's data directory anew", reinitLong, reinitExample, NewReinit(stdio)},
		{"pause", "put the cluster into maintenance", pauseLong, pauseExample, NewPause(stdio)},
		{"resume", "end the maintenance", resumeLong, resumeExample, NewResume(stdio)},
		{"remove", "forget a member that is gone for good", removeLong, removeExample, NewRemove(stdio)},
		{"version", "print the version", "", "", &Version{stdio: stdio}},
	}
}

// frame is what all commands share.
type frame struct {
	args, environ []string
	stdio         Stdio
	readFile      func(string) ([]byte, error)
	commands      []entry
}

func newRoot(f frame) *cobra.Command {
	root := &cobra.Command{
		Use:   "howdah",
		Short: "keeps a PostgreSQL primary alive and routes sessions to it",
		Long: "howdah keeps a PostgreSQL primary alive, with a lock in Consul and a lease on top of it, and\n" +
			"sends every session to the right server.",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return usageError(errors.New(unknownCommand(c, args[0])))
		},
		RunE: func(c *cobra.Command, args []string) error { return c.Help() },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetHelpFunc(func(c *cobra.Command, _ []string) { f.overview(c) })
	root.SuggestionsMinimumDistance = 2
	root.SetArgs(append([]string{}, f.args...)) // nil would mean os.Args
	root.SetIn(f.stdio.In)
	root.SetOut(f.stdio.Out)
	root.SetErr(f.stdio.Err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError(err) })
	for _, e := range f.commands {
		root.AddCommand(f.bind(e, "howdah "))
	}
	return root
}

func unknownCommand(root *cobra.Command, name string) string {
	text := fmt.Sprintf("howdah: there is no command %q", name)
	if near := root.SuggestionsFor(name); len(near) > 0 {
		return text + "; did you mean " + strings.Join(near, " or ") + "?"
	}
	var names []string
	for _, c := range root.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return text + "; choose from " + strings.Join(names, ", ")
}

func usageError(err error) error { return fmt.Errorf("%w\n%w", err, errUsage) }

// bind makes a cobra command that loads the options and then runs e.
func (f frame) bind(e entry, path string) *cobra.Command {
	set := options.New(path+e.name, e.command)
	use := e.name + " [options]"
	words, takesWords := e.command.(argued)
	if takesWords {
		use = e.name + " " + words.ArgumentsUse() + " [options]"
	}
	c := &cobra.Command{
		Use:     use,
		Short:   e.short,
		Long:    e.long,
		Example: e.example,
		Args: func(_ *cobra.Command, args []string) error {
			if takesWords {
				if err := words.Arguments(args); err != nil {
					return usageError(fmt.Errorf("%s%s: %w", path, e.name, err))
				}
				return nil
			}
			if len(args) > 0 {
				return usageError(fmt.Errorf("%s%s: %q is not wanted here; options begin with --", path, e.name, args[0]))
			}
			return nil
		},
	}
	if p, has := e.command.(parent); has {
		for _, child := range p.Commands() {
			c.AddCommand(f.bind(child, path+e.name+" "))
		}
	}
	sources := func(partial bool) options.Sources {
		return options.Sources{Flags: options.Given(c.Flags()), Environ: f.environ, ReadFile: f.readFile, Elsewhere: f.elsewhere(e.name), Partial: partial}
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := set.Load(sources(false)); err != nil {
			return err
		}
		if r, is := e.command.(reloadable); is {
			r.LoadAgain(func(fresh Command) error { return options.New(path+e.name, fresh).Load(sources(false)) })
		}
		return e.command.Run(c.Context())
	}
	set.AddFlags(c.Flags())
	c.DisableFlagsInUseLine = true
	c.SetHelpFunc(func(c *cobra.Command, _ []string) { f.help(c, set) })
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		found := set.UnknownFlags(f.args, "help")
		if len(found) == 0 {
			found = options.Problems{{From: path + e.name, Advice: err.Error()}}
		}
		var others options.Problems
		if errors.As(set.Load(sources(true)), &others) {
			found = append(found, others...)
		}
		return found
	})
	return c
}

// overview is the help of howdah itself: the commands in their order.
func (f frame) overview(root *cobra.Command) {
	fmt.Fprintf(f.stdio.Out, "%s\n\nUsage:\n  howdah COMMAND [options]\n\n", root.Long)
	for _, e := range f.commands {
		fmt.Fprintf(f.stdio.Out, "  %-12s%s\n", e.name, e.short)
	}
	fmt.Fprint(f.stdio.Out, "\nhowdah COMMAND --help shows a command's options and an example; howdah demo is the way to try it all.\n")
}

func (f frame) help(c *cobra.Command, set *options.Set) {
	text := c.Long
	if text == "" {
		text = c.Short
	}
	fmt.Fprintf(f.stdio.Out, "%s\n\nUsage:\n  %s\n", strings.TrimSpace(text), c.UseLine())
	for _, child := range c.Commands() {
		if child.IsAvailableCommand() {
			fmt.Fprintf(f.stdio.Out, "  %-50s %s\n", child.UseLine(), child.Short)
		}
	}
	if c.Example != "" {
		fmt.Fprint(f.stdio.Out, "\nExample:\n")
		for line := range strings.Lines(c.Example) {
			fmt.Fprintf(f.stdio.Out, "  %s\n", strings.TrimRight(line, "\n"))
		}
	}
	fmt.Fprint(f.stdio.Out, set.Usage())
}

// elsewhere returns the options of the other commands.
func (f frame) elsewhere(name string) map[string]string {
	takers := map[string][]string{}
	for _, e := range f.commands {
		if e.name == name {
			continue
		}
		for _, option := range options.New(e.name, e.command).Names() {
			takers[option] = append(takers[option], "howdah "+e.name)
		}
	}
	joined := map[string]string{}
	for option, commands := range takers {
		slices.Sort(commands)
		joined[option] = strings.Join(commands, " and ")
	}
	return joined
}
