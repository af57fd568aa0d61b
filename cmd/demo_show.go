package cmd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"howdah/cmd/options"
	"howdah/cmd/statustable"
	"howdah/consul/schema"
	"howdah/sidecar/local"
)

const (
	// demoLookEvery is how often the members are asked.
	demoLookEvery = 250 * time.Millisecond
	// comeUpTimeout is long, because a machine may be slow; what happens is shown all the time.
	comeUpTimeout = 5 * time.Minute
)

// demo is a cluster that runs and is shown.
type demo struct {
	c       *Demo
	cluster *local.Cluster
	show    *screen
	place   *place
	began   time.Time
	// said is what was said last about each member and process.
	said map[string]string
	// seen is the time of the newest event shown of each recorder.
	seen map[string]schema.Instant
	// passLines is what the password file holds.
	passLines string
}

func (d *demo) welcome() {
	what := "a new cluster"
	if d.place.resumed {
		what = "the data of an earlier run are used again (--fresh begins anew)"
	}
	d.show.say("howdah demo in %s: %s", d.place.dir, what)
	if user := d.cluster.User(); os.Geteuid() == 0 {
		d.show.say("PostgreSQL refuses to run as root: everything runs as user %s", user.Name)
	}
}

// comeUp shows what the members do until one serves and all others stream.
func (d *demo) comeUp(ctx context.Context) (primary *local.Member, err error) {
	up, cancel := context.WithTimeoutCause(ctx, comeUpTimeout, fmt.Errorf("the cluster is not up after %s; the logs are in %s", comeUpTimeout, filepath.Join(d.place.dir, "log")))
	defer cancel()
	err = local.Poll(up, demoLookEvery, func() bool {
		look := d.cluster.Look(up)
		d.tell(look)
		primary = look.Primary()
		return up.Err() == nil && look.Healthy()
	})
	if err == nil {
		d.show.say("[%5.1fs] up: %d members, all standbys stream", time.Since(d.began).Seconds(), len(d.cluster.Members()))
	}
	return primary, err
}

// tell prints a line for each member that does something else than it did, and for each process that ended unasked.
func (d *demo) tell(look local.Look) {
	for _, a := range look {
		line := "starting"
		if a.Err == nil {
			s := a.Status.Self
			line = strings.TrimSpace(fmt.Sprintf("%s %s", s.Role, s.State))
			if s.Epoch > 0 {
				line += fmt.Sprintf(", epoch %d, timeline %d", s.Epoch, s.Timeline)
			}
			if s.Reason != "" {
				line += ": " + s.Reason
			}
		} else if d.said[a.Member.Name] != "" && d.said[a.Member.Name] != "starting" {
			line = "does not answer"
		}
		d.once(a.Member.Name, a.Member.Name+"  "+line, line)
	}
	for _, trouble := range d.cluster.Troubles() {
		name, _, _ := strings.Cut(trouble, " ended ")
		d.once("trouble of "+name, trouble+"; it is started again", trouble)
	}
}

func (d *demo) once(key, text, said string) {
	if d.said[key] == said {
		return
	}
	d.said[key] = said
	d.show.say("[%5.1fs] %s", time.Since(d.began).Seconds(), text)
}

// instruct writes the password file and prints what can be done with the cluster.
func (d *demo) instruct() error {
	if err := d.keepPassfile(); err != nil {
		return err
	}
	bin := d.c.BinDir
	if bin == "" {
		var err error
		if bin, err = local.FindBinDir(context.Background()); err != nil {
			return err
		}
	}
	psql, pgbench := program(bin, "psql"), program(bin, "pgbench")
	rw, ro := connectable(d.c.RouterListen), connectable(d.c.RouterROListen)
	write, read := connURL("postgres", rw, "postgres", d.passfile()), connURL("postgres", ro, "postgres", d.passfile())
	d.show.say(`
Connect:
  %s %q
  %s %q   (reads only)
  %s %q -c "SHOW POOLS"   (the router's console; SHOW HELP)
Load:
  %s -i -s 10 %q
  %s -c 8 -T 60 -P 5 %q
In another terminal:
  export %s
  howdah status; howdah why; howdah history; howdah config
  howdah switchover
  howdah --help
Look: logs are in %s
Ctrl-C ends everything and keeps the data.
`,
		psql, write, psql, read, psql, connURL(consoleUser, rw, "howdah", d.passfile()),
		pgbench, write, pgbench, write, strings.Join(d.environment(), " "), filepath.Join(d.place.dir, "log"))
	return nil
}

// environment is what a shell needs so that howdah's commands are about this cluster.
func (d *demo) environment() []string {
	file := options.EnvironmentName("api-token-file") + "=" + quoted(d.cluster.SecretFile("api.token"))
	all := []string{
		"PATH=" + quoted(filepath.Dir(d.cluster.Binary())) + ":$PATH", options.EnvironmentName("cluster") + "=" + d.cluster.Name(),
		options.EnvironmentName("consul-addr") + "=" + quoted(d.cluster.Consul()), file,
	}
	if f := d.c.ConsulTokenFile; f != "" {
		all = append(all, options.EnvironmentName("consul-token-file")+"="+quoted(f))
	}
	return all
}

func (d *demo) passfile() string { return filepath.Join(d.place.dir, "pgpass") }

// keepPassfile writes the password file, again whenever a password has changed.
func (d *demo) keepPassfile() error {
	superuser, err := d.cluster.Secret("superuser")
	console, err2 := d.cluster.Secret(consoleUser)
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	rw, ro := connectable(d.c.RouterListen), connectable(d.c.RouterROListen)
	lines, err := passLines(passLine{rw, "*", "postgres", superuser}, passLine{ro, "*", "postgres", superuser}, passLine{rw, "howdah", consoleUser, console})
	if err != nil || lines == d.passLines {
		return err
	}
	if err := writePassfile(d.passfile(), lines); err != nil {
		return err
	}
	d.passLines = lines
	return nil
}

// watch shows the cluster until ctx ends. What it takes to break the primary is said anew whenever that has changed.
func (d *demo) watch(ctx context.Context, primary *local.Member) {
	t := time.NewTicker(demoLookEvery)
	defer t.Stop()
	for {
		look := d.cluster.Look(ctx)
		if ctx.Err() != nil {
			return
		}
		d.events(ctx)
		if err := d.keepPassfile(); err != nil {
			d.once("passfile", "the password file is not kept: "+err.Error(), err.Error())
		}
		if p := look.Primary(); p != nil {
			primary = p
		}
		if d.show.terminal() {
			d.show.set(d.table(look, primary))
		} else {
			d.tell(look)
			if text, is := breaks(primary); is {
				d.once("break", text, text)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// events prints what the members and the router have recorded since it was printed last.
func (d *demo) events(ctx context.Context) {
	// Who does not answer now is asked again; the rest is good.
	all, _ := d.cluster.Events(ctx)
	first := d.seen == nil
	if first {
		d.seen = map[string]schema.Instant{}
	}
	newest := map[string]schema.Instant{}
	for _, e := range all {
		newest[e.By] = schema.Latest(newest[e.By], e.At)
		// Promises come with every renewal while Consul is away: the first says it all.
		if first || e.At <= d.seen[e.By] || e.Kind == schema.EventPromise && d.said["event of "+e.By] == string(e.Kind) {
			continue
		}
		d.said["event of "+e.By] = string(e.Kind)
		d.show.say("%s  %s  %s  epoch %d  %s", e.Wall.Local().Format("15:04:05.000"), e.By, e.Kind, e.Epoch, e.Detail)
	}
	for by, at := range newest {
		d.seen[by] = schema.Latest(d.seen[by], at)
	}
}

// breaks is how to break the primary; there is none where its PostgreSQL does not run.
func breaks(m *local.Member) (text string, is bool) {
	postmaster, err := m.Postmaster()
	if err != nil || m.LaunchPID() == 0 || m.SidecarPID() == 0 {
		return "", false
	}
	all := fmt.Sprintf("kill -9 %d %d", m.LaunchPID(), m.SidecarPID())
	return fmt.Sprintf("Break it (%s is the primary now):\n  %-*s   its PostgreSQL\n  %s   all of it; the demo starts it again, as systemd would",
		m.Name, len(all), fmt.Sprintf("kill -9 %d", postmaster), all), true
}

// table is the status table and, beneath it, what to kill.
func (d *demo) table(look local.Look, primary *local.Member) string {
	var answers []statustable.Answer
	for _, a := range look {
		answer := statustable.Answer{Member: a.Member.Name}
		if a.Err != nil {
			answer.Err = plainly(context.Background(), a.Err).Error()
		} else {
			answer.Status = &a.Status
		}
		answers = append(answers, answer)
	}
	var b strings.Builder
	b.WriteString("\n")
	if err := statustable.Merge(d.cluster.Name(), statustable.Consul{}, answers).WriteTable(&b); err != nil {
		return err.Error()
	}
	b.WriteString("\n")
	if text, is := breaks(primary); is {
		b.WriteString(text + "\n")
	}
	for _, m := range d.cluster.Members() {
		if m == primary {
			continue
		}
		running := "no PostgreSQL"
		if postmaster, err := m.Postmaster(); err == nil {
			running = fmt.Sprintf("PostgreSQL %d", postmaster)
		}
		fmt.Fprintf(&b, "%s: %s, launcher %d, sidecar %d\n", m.Name, running, m.LaunchPID(), m.SidecarPID())
	}
	return b.String()
}

// stop ends everything and says where the data are.
func (d *demo) stop() error {
	d.show.set("")
	d.show.say("stopping everything")
	ctx, cancel := context.WithTimeout(context.Background(), demoStopTimeout)
	defer cancel()
	err := d.cluster.Stop(ctx)
	d.show.say("%s", farewell(err, d.place.dir, d.again()))
	return err
}

// farewell is the demo's last word; an error of the end is printed beneath it.
func farewell(err error, dir, again string) string {
	end := "nothing runs any more"
	if err != nil {
		end = "not everything ended as it should, see below"
	}
	return fmt.Sprintf("%s. The data are in %s; `%s` goes on with them, with --fresh it begins anew.", end, dir, again)
}

// again is the demo as it was called, by the name and the directory.
func (d *demo) again() string {
	called := quoted(os.Args[0]) + " demo"
	if d.c.Dir != demoDir() {
		called += " --dir " + quoted(d.c.Dir)
	}
	return called
}

// connectable is where a client of this machine reaches a listener.
func connectable(listen string) string {
	if !wildcard(listen) {
		return listen
	}
	_, port, _ := net.SplitHostPort(listen)
	return net.JoinHostPort("127.0.0.1", port)
}

// passLine is a line of a password file for libpq (its format is that of .pgpass).
type passLine struct{ address, database, user, password string }

func passLines(all ...passLine) (string, error) {
	escape := strings.NewReplacer(`\`, `\\`, `:`, `\:`)
	var b strings.Builder
	for _, one := range all {
		host, port, err := net.SplitHostPort(one.address)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "%s:%s:%s:%s:%s\n", escape.Replace(host), port, one.database, one.user, escape.Replace(one.password))
	}
	return b.String(), nil
}

// writePassfile replaces a password file at once: psql may just be reading it.
func writePassfile(name, lines string) error {
	temporary := name + ".new"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(temporary, []byte(lines), 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, name)
}

// connURL is a connection URL with a password file (libpq, 34.1.1.2). libpq takes a plus sign for itself.
func connURL(user, address, database, passfile string) string {
	escaped := strings.NewReplacer("+", "%20", "%2F", "/").Replace(url.QueryEscape(passfile))
	return "postgresql://" + user + "@" + address + "/" + database + "?passfile=" + escaped
}

// program is how a program of PostgreSQL's is called from a shell.
func program(bin, name string) string {
	if _, err := exec.LookPath(name); err == nil {
		return name
	}
	return quoted(filepath.Join(bin, name))
}

// quoted makes text one word for a shell.
func quoted(text string) string {
	if text != "" && !strings.ContainsFunc(text, func(r rune) bool { return !strings.ContainsRune(plainRunes, r) }) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

const plainRunes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=,@%+"
