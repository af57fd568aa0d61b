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
func (d *demo) instruct(primary *local.Member) error {
	passfile := filepath.Join(d.place.dir, "pgpass")
	rw, ro := connectable(d.c.RouterListen), connectable(d.c.RouterROListen)
	password, err := d.cluster.Secret("superuser")
	if err != nil {
		return err
	}
	if err := writePassfile(passfile, password, rw, ro); err != nil {
		return err
	}
	bin := d.c.BinDir
	if bin == "" {
		if bin, err = local.FindBinDir(context.Background()); err != nil {
			return err
		}
	}
	psql, pgbench := program(bin, "psql"), program(bin, "pgbench")
	self, err := os.Executable()
	if err != nil {
		return err
	}
	access := "--cluster " + d.cluster.Name() + " --consul-addr " + d.cluster.Consul()
	if f := d.c.ConsulTokenFile; f != "" {
		access += " --consul-token-file " + quoted(f)
	}
	d.show.say(`
Connect:
  %s %q
  %s %q   (reads only)
Load:
  %s -i -s 10 %q
  %s -c 8 -T 60 -P 5 %q
Break it (%s is the primary now):
  kill -9 $(head -1 %s)   (its PostgreSQL)
  kill -9 %d %d   (all of it: launcher, sidecar, and with them PostgreSQL; the demo starts it again, as systemd would)
  %s switchover %s --api-token-file %s
Look: logs are in %s
Ctrl-C ends everything and keeps the data.
`,
		psql, connURL(rw, passfile), psql, connURL(ro, passfile),
		pgbench, connURL(rw, passfile), pgbench, connURL(rw, passfile),
		primary.Name, quoted(filepath.Join(primary.DataDir, "postmaster.pid")), primary.LaunchPID(), primary.SidecarPID(), quoted(self), access, quoted(d.cluster.SecretFile("api.token")),
		filepath.Join(d.place.dir, "log"))
	return nil
}

// watch shows the cluster until ctx ends.
func (d *demo) watch(ctx context.Context) {
	t := time.NewTicker(demoLookEvery)
	defer t.Stop()
	for {
		look := d.cluster.Look(ctx)
		if ctx.Err() != nil {
			return
		}
		d.events(ctx)
		if d.show.terminal() {
			d.show.set(d.table(look))
		} else {
			d.tell(look)
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

// table is the status table and, beneath it, what to kill.
func (d *demo) table(look local.Look) string {
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
	for _, m := range d.cluster.Members() {
		postmaster, err := m.Postmaster()
		line := fmt.Sprintf("%s: PostgreSQL %d, launcher %d, sidecar %d", m.Name, postmaster, m.LaunchPID(), m.SidecarPID())
		if err != nil {
			line = fmt.Sprintf("%s: no PostgreSQL, launcher %d, sidecar %d", m.Name, m.LaunchPID(), m.SidecarPID())
		}
		b.WriteString(line + "\n")
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
	again := "howdah demo"
	if d.c.Dir != demoDir() {
		again += " --dir " + quoted(d.c.Dir)
	}
	d.show.say("nothing runs any more. The data are in %s; `%s` goes on with them, with --fresh it begins anew.", d.place.dir, again)
	return err
}

// connectable is where a client of this machine reaches a listener.
func connectable(listen string) string {
	if !wildcard(listen) {
		return listen
	}
	_, port, _ := net.SplitHostPort(listen)
	return net.JoinHostPort("127.0.0.1", port)
}

// writePassfile writes a password file for libpq (its format is that of .pgpass), for the superuser at each address.
func writePassfile(name, password string, addresses ...string) error {
	escape := strings.NewReplacer(`\`, `\\`, `:`, `\:`)
	var b strings.Builder
	for _, a := range addresses {
		host, port, err := net.SplitHostPort(a)
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s:%s:*:postgres:%s\n", escape.Replace(host), port, escape.Replace(password))
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.WriteFile(name, []byte(b.String()), 0o600)
}

// connURL is a connection URL with a password file (libpq, 34.1.1.2). libpq takes a plus sign for itself.
func connURL(address, passfile string) string {
	escaped := strings.NewReplacer("+", "%20", "%2F", "/").Replace(url.QueryEscape(passfile))
	return "postgresql://postgres@" + address + "/postgres?passfile=" + escaped
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
