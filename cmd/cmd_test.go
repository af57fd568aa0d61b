package cmd

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"howdah/cmd/options"
	"howdah/consul"
	"howdah/consul/boottime"
)

// stdio returns what a command printed, next to the Stdio to give it.
func testStdio() (Stdio, *strings.Builder, *strings.Builder) {
	var out, err strings.Builder
	return Stdio{In: strings.NewReader(""), Out: &out, Err: &err}, &out, &err
}

func TestExitCodes(t *testing.T) {
	for name, c := range map[string]struct {
		args, environ []string
		code          int
		out, err      string
	}{
		"no command":               {nil, nil, 0, "keeps a PostgreSQL primary alive", ""},
		"help":                     {[]string{"--help"}, nil, 0, "switchover", ""},
		"version":                  {[]string{"version"}, nil, 0, "howdah ", ""},
		"unknown command":          {[]string{"ruoter"}, nil, 2, "", `there is no command "ruoter"; did you mean router?`},
		"nothing alike":            {[]string{"frobnicate"}, nil, 2, "", "choose from "},
		"unknown flag at the root": {[]string{"--frob"}, nil, 2, "", "unknown flag: --frob"},
		"stray word":               {[]string{"status", "main"}, nil, 2, "", `"main" is not wanted here`},
		"unknown flag": {[]string{"status", "--cluser=main", "--outptu=x"}, nil, 2, "",
			"flag --cluser: howdah status has no such flag; did you mean --cluster?\nflag --outptu: howdah status has no such flag; did you mean --output?\n"},
		"unknown flag and bad variable": {[]string{"status", "--cluser=main"}, []string{"HOWDAH_OUTPUT=xml"}, 2, "", `environment HOWDAH_OUTPUT: "xml" is not allowed; choose table or json`},
		"flag without a value":          {[]string{"status", "--cluster"}, nil, 2, "", "flag needs an argument: --cluster"},
		"nothing given":                 {[]string{"status"}, nil, 2, "", "option --cluster: is required"},
		"everything wrong": {[]string{"router", "--name=-", "--listen=6432"}, []string{"HOWDAH_LOG_LEVEL=loud"}, 2, "",
			"option --cluster: is required; give --cluster, HOWDAH_CLUSTER or the key cluster\n" +
				`flag --name: "-" is not allowed; use 1 to 63 of letters, digits, dot, _ and -, with a letter or digit at either end` + "\n" +
				`flag --listen: "6432" is not allowed; want host:port, such as 10.0.0.1:5432` + "\n" +
				"option --gossip-key-file: is required; give --gossip-key-file, HOWDAH_GOSSIP_KEY_FILE or the key gossip_key_file\n" +
				`environment HOWDAH_LOG_LEVEL: "loud" is not allowed; choose debug, info, warn or error` + "\n"},
		"the router's own bounds": {[]string{"router", "--cluster=main", "--name=r", "--gossip-key-file=/k", "--failover-wait=2h"}, nil, 2, "",
			"flag --failover-wait: 2h0m0s is not allowed; choose from 0s to 1h0m0s"},
		"token as a flag":           {[]string{"switchover", "--cluster=main", "--api-token=hush"}, nil, 2, "", "secrets have no flag; set HOWDAH_API_TOKEN"},
		"no member there":           {[]string{"status", "--api=127.0.0.1:1"}, nil, 1, "", "howdah: no member answers:\n127.0.0.1:1: connection refused"},
		"no consul there":           {[]string{"status", "--cluster=main", "--consul-addr=127.0.0.1:1"}, nil, 1, "", "if Consul is away, name members with --api"},
		"other commands' variables": {[]string{"version"}, []string{"HOWDAH_LISTEN_RO=a:1", "HOWDAH_PORT=tcp://10.0.0.1:6432"}, 0, "howdah ", ""},
	} {
		t.Run(name, func(t *testing.T) {
			stdio, out, stderr := testStdio()
			if code := Main(c.args, c.environ, stdio); code != c.code {
				t.Errorf("want exit code %d, got %d", c.code, code)
			}
			if !strings.Contains(out.String(), c.out) || !strings.Contains(stderr.String(), c.err) {
				t.Errorf("want %q and %q, got\n%s\nand\n%s", c.out, c.err, out, stderr)
			}
			if strings.Contains(stderr.String(), "hush") {
				t.Error("a secret stands in the message")
			}
			if c.err == "" && stderr.Len() > 0 {
				t.Errorf("not wanted: %s", stderr)
			}
		})
	}
}

func TestMain(m *testing.M) {
	askTimeout, consulTimeout = 10*time.Second, 20*time.Second
	os.Exit(m.Run())
}

// link is what Kubernetes makes of a Service called howdah-something; see options.
var link = regexp.MustCompile(`(^|_)(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT)$|_PORT_[0-9]+_`)

func TestEveryCommandHelpsAndTakesNoNameOfALink(t *testing.T) {
	stdio, _, _ := testStdio()
	for _, e := range commands(stdio) {
		t.Run(e.name, func(t *testing.T) {
			stdio, out, _ := testStdio()
			if code := Main([]string{e.name, "--help"}, nil, stdio); code != 0 {
				t.Fatalf("exit code %d", code)
			}
			for _, name := range options.New(e.name, e.command).Names() {
				if !strings.Contains(out.String(), "--"+name) && !strings.Contains(out.String(), options.EnvironmentName(name)) {
					t.Errorf("--%s is not in the help", name)
				}
				if v := strings.TrimPrefix(options.EnvironmentName(name), "HOWDAH_"); link.MatchString(v) {
					t.Errorf("HOWDAH_%s may be made by Kubernetes; give the option another name", v)
				}
				flag := regexp.MustCompile("--" + name + "([^-a-z]|$)").MatchString(out.String())
				if strings.Contains(name, "password") && flag && !strings.HasSuffix(name, "-file") {
					t.Errorf("--%s: a password must come from a file or the environment", name)
				}
			}
		})
	}
}

func TestDefaultsAloneLackOnlyWhatMustBeSaid(t *testing.T) {
	stdio, _, _ := testStdio()
	launch := NewLaunch(stdio)
	launch.DataDir = "/var/lib/postgresql/main"
	sidecar := NewSidecar(stdio)
	sidecar.Cluster, sidecar.Name, sidecar.DataDir, sidecar.PostgresAdvertise = "main", "a", "/var/lib/postgresql/main", "10.0.0.1:5432"
	router := NewRouter(stdio)
	router.Cluster, router.Name, router.Gossip.KeyFile = "main", "r1", "/etc/howdah/gossip.key"
	status := NewStatus(stdio)
	status.Cluster = "main"
	switchover := NewSwitchover(stdio)
	switchover.Cluster = "main"
	for name, c := range map[string]interface{ Validate() error }{"launch": launch, "sidecar": sidecar, "router": router, "status": status, "switchover": switchover} {
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSidecarAddresses(t *testing.T) {
	for name, c := range map[string]struct {
		change                func(*Sidecar)
		postgres, api, gossip string
	}{
		"from postgres-advertise": {func(c *Sidecar) { c.PostgresAdvertise = "db1:5432" }, "db1:5432", "db1:8008", "db1:7946"},
		"listening on one address": {func(c *Sidecar) {
			c.PostgresListen, c.APIListen, c.Gossip.Listen = "10.0.0.1:5433", "10.0.0.2:9000", "10.0.0.3:7000"
		}, "10.0.0.1:5433", "10.0.0.2:9000", "10.0.0.3:7000"},
		"everything advertised": {func(c *Sidecar) { c.PostgresAdvertise, c.APIAdvertise, c.Gossip.Advertise = "a:1", "b:2", "c:3" }, "a:1", "b:2", "c:3"},
		"any address of IPv6": {func(c *Sidecar) {
			c.PostgresAdvertise, c.APIListen, c.Gossip.Listen = "[fd00::1]:5432", "[::]:8008", ":7946"
		}, "[fd00::1]:5432", "[fd00::1]:8008", "[fd00::1]:7946"},
	} {
		t.Run(name, func(t *testing.T) {
			sidecar := NewSidecar(Stdio{})
			sidecar.Cluster, sidecar.Name, sidecar.DataDir = "main", "a", "/data"
			c.change(sidecar)
			if err := sidecar.Validate(); err != nil {
				t.Fatal(err)
			}
			got := sidecar.addresses()
			if got.Postgres != c.postgres || got.API != c.api || got.Gossip != c.gossip {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestSidecarNeedsAnAddressThatOthersReach(t *testing.T) {
	sidecar := NewSidecar(Stdio{})
	sidecar.Cluster, sidecar.Name, sidecar.DataDir, sidecar.APICertFile = "main", "a", "/data", "/cert"
	want := "option --api-key-file: is required with --api-cert-file\n" +
		"option --postgres-advertise: is required, because --postgres-listen 0.0.0.0:5432 is no address that others can connect to"
	if err := sidecar.Validate(); err == nil || err.Error() != want {
		t.Errorf("want\n%s\ngot\n%v", want, err)
	}
	sidecar.APIKeyFile, sidecar.PostgresAdvertise = "/key", "0.0.0.0:5432"
	if err := sidecar.Validate(); err == nil || !strings.Contains(err.Error(), `option --postgres-advertise: "0.0.0.0:5432" is not allowed; name an address`) {
		t.Errorf("got %v", err)
	}
}

func TestBootstrapConfiguration(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bootstrap.yaml")
	read := func(text string) (string, error) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		config, err := (&Sidecar{BootstrapConfig: file}).bootstrap()
		return config.Lease.String() + " " + config.SessionTTL.String() + " " + config.Parameters["work_mem"], err
	}
	if got, err := read("lease: 5s\nparameters:\n  work_mem: 64MB\n"); err != nil || got != "5s 10s 64MB" {
		t.Errorf("got %q, %v", got, err)
	}
	for text, want := range map[string]string{"leese: 5s": "leese", "lease: 5\nleese: 1s": "lease: 5 is not allowed: duration 5", "lease: 1ms": "choose from 1s to 1m0s", "parameters: {port: \"1\"}": "port cannot be set here"} {
		if _, err := read(text); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: got %v", text, err)
		}
	}
}

func TestClusterNamesAreBoundedAsConsulBoundsThem(t *testing.T) {
	for _, name := range []string{"a", "main", "a-b", "a1", "1", strings.Repeat("a", 63), "", "A", "-a", "a-", "a.b", "a_b", "a b", "a/b", strings.Repeat("a", 64), "ä"} {
		_, err := consul.New(consul.Options{Cluster: name}, boottime.Now, zap.NewNop())
		if ours := clusterName.MatchString(name); ours != (err == nil) {
			t.Errorf("%q: here %t, in consul: %v", name, ours, err)
		}
	}
}

func TestBinDirIsNeverGuessedAmongSeveral(t *testing.T) {
	root := t.TempDir()
	pattern := filepath.Join(root, "*", "bin", "postgres")
	install := func(version string) string {
		dir := filepath.Join(root, version, "bin")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "postgres"), nil, 0o755); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	l := &Launch{}
	if _, err := l.binDir(pattern); err == nil || !strings.Contains(err.Error(), "no PostgreSQL") {
		t.Errorf("got %v", err)
	}
	only := install("15")
	if got, err := l.binDir(pattern); err != nil || got != only {
		t.Errorf("got %q, %v", got, err)
	}
	install("17")
	if _, err := l.binDir(pattern); err == nil || !strings.Contains(err.Error(), "choose one of") {
		t.Errorf("got %v", err)
	}
	if got, err := (&Launch{BinDir: "/opt/pg"}).binDir(pattern); err != nil || got != "/opt/pg" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestLoggerForms(t *testing.T) {
	for _, c := range []struct {
		o    LogOptions
		want string
		not  string
	}{
		{LogOptions{"info", "json"}, `"level":"info"`, "quiet"},
		{LogOptions{"debug", "console"}, "quiet", "{\"level"},
		{LogOptions{"error", "console"}, "", "loud"},
	} {
		_, _, w := testStdio()
		log, err := c.o.logger(w)
		if err != nil {
			t.Fatal(err)
		}
		log.Debug("quiet")
		log.Info("loud")
		if err := log.Sync(); err != nil {
			t.Fatal(err)
		}
		if got := w.String(); !strings.Contains(got, c.want) || strings.Contains(got, c.not) {
			t.Errorf("%+v: %q", c.o, got)
		}
	}
}

func TestVersionSaysWhatMembersPublish(t *testing.T) {
	stdio, out, _ := testStdio()
	if err := (&Version{stdio: stdio}).Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(buildVersion(), strings.Fields(out.String())[1]); diff != "" {
		t.Error(diff)
	}
}

func TestCloneWithoutRoomIsOneOfTwo(t *testing.T) {
	for value, fine := range map[string]bool{"keep": true, "remove-first": true, "": false, "remove": false} {
		sidecar := NewSidecar(Stdio{})
		sidecar.Cluster, sidecar.Name, sidecar.DataDir, sidecar.PostgresAdvertise = "main", "a", "/data", "10.0.0.1:5432"
		if sidecar.CloneWithoutRoom != "keep" {
			t.Fatalf("the default is %q", sidecar.CloneWithoutRoom)
		}
		sidecar.CloneWithoutRoom = value
		if err := sidecar.Validate(); (err == nil) != fine || err != nil && !strings.Contains(err.Error(), "choose keep or remove-first") {
			t.Errorf("%q: %v", value, err)
		}
	}
}

func TestSidecarRestoreOptionsGoTogether(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Sidecar)
		want   string
	}{
		"all": {func(c *Sidecar) {
			c.Init, c.RestoreCommand, c.RestoreTarget = "restore", "cp -a /backup/. %d", "name=x"
		}, ""},
		"no command": {func(c *Sidecar) { c.Init = "restore" }, "option --restore-command: is required with --init restore"},
		"exclusive":  {func(c *Sidecar) { c.Init, c.RestoreCommand, c.RestoreTargetInclusive = "restore", "x %d", false }, "option --restore-target-inclusive: false goes with"},
		"new":        {func(c *Sidecar) { c.RestoreTarget = "immediate" }, `option --restore-target: "immediate" is not allowed; goes with --init restore only`},
		"existing":   {func(c *Sidecar) { c.Init, c.RestoreCommand = "existing", "x %d" }, "goes with --init restore only"},
	} {
		sidecar := NewSidecar(Stdio{})
		sidecar.Cluster, sidecar.Name, sidecar.DataDir, sidecar.PostgresAdvertise = "main", "a", "/data", "10.0.0.1:5432"
		c.change(sidecar)
		err := sidecar.Validate()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
