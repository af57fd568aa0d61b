package options

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

type sample struct {
	Name     string
	Level    string
	Seeds    []string
	Wait     time.Duration
	Clients  int
	ReadOnly bool
	Token    Secret
}

func defaults() sample { return sample{Level: "info", Wait: 30 * time.Second, Clients: 100} }

func (o *sample) Declare(s *Set) {
	s.Group("Sample")
	s.String(&o.Name, "name", "the name", Required)
	s.String(&o.Level, "log-level", "how much", OneOf("debug", "info", "warn"))
	s.Strings(&o.Seeds, "gossip-join", "whom to join", Matches(func(t string) bool { return strings.Contains(t, ":") }, "want host:port"))
	s.Duration(&o.Wait, "failover-wait", "how long", 0, time.Hour)
	s.Int(&o.Clients, "max-clients", "how many", 1, 1000)
	s.Bool(&o.ReadOnly, "read-only", "no writes")
	s.Secret(&o.Token, "consul-token", "the token")
	s.Check(func() []Problem {
		if o.ReadOnly && o.Clients > 500 {
			return []Problem{s.Problem("max-clients", "with --read-only choose at most 500")}
		}
		return nil
	})
}

// load reads one sample the way a command does.
func load(t testing.TB, args, environ []string, file string) (sample, error) {
	t.Helper()
	o := defaults()
	s := New("howdah sample", &o)
	flags := pflag.NewFlagSet("sample", pflag.ContinueOnError)
	s.AddFlags(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatalf("flags: %v", err)
	}
	return o, s.Load(Sources{
		Flags:     Given(flags),
		Environ:   environ,
		Elsewhere: map[string]string{"listen-ro": "howdah router"},
		ReadFile: func(name string) ([]byte, error) {
			if name != "/etc/howdah.yaml" {
				return nil, fmt.Errorf("open %s: no such file or directory", name)
			}
			return []byte(file), nil
		},
	})
}

// What seems to be missing may stand in the file that cannot be read.
func TestAFileThatCannotBeReadIsTheOnlyMistake(t *testing.T) {
	for name, c := range map[string]struct{ args, file, want string }{
		"no file":  {"--config=/etc/nope.yaml", "", "flag --config: open /etc/nope.yaml: no such file or directory"},
		"no YAML":  {"--config=/etc/howdah.yaml", "name: [", "/etc/howdah.yaml: "},
		"no pairs": {"--config=/etc/howdah.yaml", "name", "/etc/howdah.yaml: want one `key: value` on each line"},
	} {
		_, err := load(t, []string{c.args}, nil, c.file)
		if err == nil || !strings.HasPrefix(err.Error(), c.want) || strings.Contains(err.Error(), "is required") {
			t.Errorf("%s: want %q and no more, got %v", name, c.want, err)
		}
	}
}

func TestEachSourceGoesBeforeTheNext(t *testing.T) {
	const file = "name: file\nlog_level: debug\nfailover_wait: 5s\nmax_clients: 7\n"
	environ := []string{"HOWDAH_NAME=environment", "HOWDAH_LOG_LEVEL=warn", "HOWDAH_FAILOVER_WAIT=6s", "PATH=/bin", "HOWDAH_MAX_CLIENTS="}
	got, err := load(t, []string{"--config=/etc/howdah.yaml", "--name", "flag"}, environ, file)
	if err != nil {
		t.Fatal(err)
	}
	want := sample{Name: "flag", Level: "warn", Wait: 6 * time.Second, Clients: 7}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestEveryKindFromEverySource(t *testing.T) {
	want := sample{Name: "a", Level: "info", Seeds: []string{"h:1", "i:2"}, Wait: 90 * time.Second, Clients: 12, ReadOnly: true}
	for name, c := range map[string]struct {
		args, environ []string
		file          string
	}{
		"flags":       {args: []string{"--name=a", "--gossip-join", "h:1, i:2", "--failover-wait=1m30s", "--max-clients=12", "--read-only"}},
		"environment": {environ: []string{"HOWDAH_NAME=a", "HOWDAH_GOSSIP_JOIN=h:1,i:2", "HOWDAH_FAILOVER_WAIT=90s", "HOWDAH_MAX_CLIENTS=12", "HOWDAH_READ_ONLY=yes"}},
		"yaml":        {file: "name: a\ngossip_join: [\"h:1\", \"i:2\"]\nfailover_wait: 90s\nmax_clients: 12\nread_only: true\n"},
		"yaml text":   {file: "name: \"a\"\ngossip_join: h:1,i:2\nfailover_wait: \"90s\"\nmax_clients: \"12\"\nread_only: \"on\"\n"},
	} {
		t.Run(name, func(t *testing.T) {
			args := c.args
			if c.file != "" {
				args = append(args, "--config=/etc/howdah.yaml")
			}
			got, err := load(t, args, c.environ, c.file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAllMistakesAtOnce(t *testing.T) {
	const file = "nmae: x\nmax_clients: many\nfailover_wait: 5\nlisten_ro: a:1\nconsul_token: hush\n"
	environ := []string{"HOWDAH_LOG_LEVEL=verbose", "HOWDAH_GOSIP_JOIN=a:1", "HOWDAH_CONSUL_TOKN=hush"}
	_, err := load(t, []string{"--config=/etc/howdah.yaml", "--gossip-join=a"}, environ, file)
	if !errors.Is(err, ErrOptions) {
		t.Fatalf("want ErrOptions, got %v", err)
	}
	want := []string{
		`environment HOWDAH_CONSUL_TOKN: no option of howdah has this name; did you mean HOWDAH_CONSUL_TOKEN?`,
		`environment HOWDAH_GOSIP_JOIN: no option of howdah has this name; did you mean HOWDAH_GOSSIP_JOIN?`,
		`/etc/howdah.yaml: consul_token: secrets do not belong into this file; set HOWDAH_CONSUL_TOKEN or name a file that holds it`,
		`/etc/howdah.yaml: failover_wait: "5" is not allowed; this is a number in YAML; put what you mean in quotes`,
		`/etc/howdah.yaml: listen_ro: is an option of howdah router, not of howdah sample`,
		`/etc/howdah.yaml: max_clients: "many" is not allowed; choose a whole number from 1 to 1000`,
		`/etc/howdah.yaml: nmae: unknown key; did you mean name?`,
		`option --name: is required; give --name, HOWDAH_NAME or the key name`,
		`environment HOWDAH_LOG_LEVEL: "verbose" is not allowed; choose debug, info or warn`,
		`flag --gossip-join: "a" is not allowed; want host:port`,
	}
	if diff := cmp.Diff(want, strings.Split(err.Error(), "\n")); diff != "" {
		t.Error(diff)
	}
	if strings.Contains(err.Error(), "hush") {
		t.Error("a secret stands in the message")
	}
}

func TestValuesOfTheWrongKindInYAML(t *testing.T) {
	for file, want := range map[string]string{
		"name: 0123":              `name: "83" is not allowed; this is a number in YAML; put what you mean in quotes`,
		"name: on":                `name: "true" is not allowed; this is a boolean in YAML; put it in quotes`,
		"name:":                   `name: "null" is not allowed; has no value; remove the key or give it one`,
		"name: {a: b}":            `want one value, not keys below it`,
		"name: [a]":               `want one value, not a list`,
		"name: a\nname: b":        `already set`,
		"- a":                     "want one `key: value` on each line",
		"name: [":                 `did not find`,
		"gossip_join: [1]":        `want a list of texts`,
		"gossip_join: [\"a:1,\"]": `hold no comma`,
		"read_only: maybe":        `read_only: "maybe" is not allowed; choose true or false`,
		"read_only: 1":            `choose true or false`,
		"max_clients: 1001":       `max_clients: "1001" is not allowed; choose a whole number from 1 to 1000`,
		"max_clients: 1.5":        `choose a whole number from 1 to 1000`,
		"failover_wait: 2h":       `failover_wait: "2h0m0s" is not allowed; choose a number with a unit`,
		"log-level: info":         `log-level: unknown key; did you mean log_level?`,
		"config: other.yaml":      `a file cannot name another one`,
		"zzzzzzzz: 1":             `unknown key; choose from name, log_level, gossip_join, failover_wait, max_clients, read_only`,
	} {
		_, err := load(t, []string{"--config=/etc/howdah.yaml"}, nil, file)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: want %q in\n%v", file, want, err)
		}
	}
}

func TestAnEmptyFileIsFine(t *testing.T) {
	for _, file := range []string{"", "---\n", "# nothing\n", "{}"} {
		if _, err := load(t, []string{"--config=/etc/howdah.yaml", "--name=a"}, nil, file); err != nil {
			t.Errorf("%q: %v", file, err)
		}
	}
}

func TestAMissingFileNamesWhoAskedForIt(t *testing.T) {
	_, err := load(t, []string{"--name=a"}, []string{"HOWDAH_CONFIG=/nowhere"}, "")
	if want := "environment HOWDAH_CONFIG: open /nowhere: no such file or directory"; err == nil || err.Error() != want {
		t.Errorf("want %q, got %v", want, err)
	}
}

func TestVariablesThatAreNotOurs(t *testing.T) {
	for _, entry := range []string{
		"HOWDAH_SERVICE_HOST=10.0.0.1", "HOWDAH_SERVICE_PORT=6432", "HOWDAH_SERVICE_PORT_RW=6432", "HOWDAH_PORT=tcp://10.0.0.1:6432",
		"HOWDAH_PORT_6432_TCP=tcp://10.0.0.1:6432", "HOWDAH_PORT_6432_TCP_ADDR=10.0.0.1", "HOWDAH_ROUTER_SERVICE_HOST=10.0.0.2",
		"HOWDAH_ROUTER_PORT=tcp://10.0.0.2:6432", "HOWDAH_ROUTER_PORT_6433_TCP_PROTO=tcp", "HOWDAH_TEST_ANYTHING=1",
		"HOWDAH_CONSUL_BIN=/x", "HOWDAH_POSTGRES_BIN_DIR=/y", "HOWDAH_LISTEN_RO=a:1", "HOWDAH_UNSET=", "HOWDAHX=1",
	} {
		if _, err := load(t, []string{"--name=a"}, []string{entry}, ""); err != nil {
			t.Errorf("%s: %v", entry, err)
		}
	}
	for _, entry := range []string{"HOWDAH_PORT=6432", "HOWDAH_SERVICE=1", "HOWDAH_FROBNICATE=1"} {
		if _, err := load(t, []string{"--name=a"}, []string{entry}, ""); err == nil {
			t.Errorf("%s: want an error", entry)
		}
	}
}

func TestChecksOverSeveralOptions(t *testing.T) {
	_, err := load(t, []string{"--name=a", "--read-only", "--max-clients=600"}, nil, "")
	if want := `flag --max-clients: "600" is not allowed; with --read-only choose at most 500`; err == nil || err.Error() != want {
		t.Errorf("want %q, got %v", want, err)
	}
	o := defaults()
	o.Name, o.ReadOnly, o.Clients = "a", true, 600
	if err := Validate(&o); err == nil || !strings.Contains(err.Error(), "option --max-clients") {
		t.Errorf("without flags: %v", err)
	}
}

func TestSecretsHaveNoFlagAndDoNotPrint(t *testing.T) {
	got, err := load(t, []string{"--name=a"}, []string{"HOWDAH_CONSUL_TOKEN=hush"}, "")
	if err != nil || got.Token.Reveal() != "hush" {
		t.Fatalf("got %q, %v", got.Token.Reveal(), err)
	}
	asJSON, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{fmt.Sprint(got), fmt.Sprintf("%#v", got), fmt.Sprintf("%q %s", got.Token, got.Token), string(asJSON)} {
		if strings.Contains(text, "hush") {
			t.Errorf("the secret stands in %s", text)
		}
	}
	o := defaults()
	s := New("howdah sample", &o)
	flags := pflag.NewFlagSet("sample", pflag.ContinueOnError)
	s.AddFlags(flags)
	if flags.Lookup("consul-token") != nil {
		t.Error("a secret has a flag")
	}
}

func TestUnknownFlags(t *testing.T) {
	o := defaults()
	s := New("howdah sample", &o)
	got := s.UnknownFlags([]string{"--nmae=x", "--name", "--help", "-o", "--zzzzzzzzzz", "--consul-token=hush", "--"}, "help")
	want := "flag --nmae: howdah sample has no such flag; did you mean --name?\n" +
		"flag --zzzzzzzzzz: howdah sample has no such flag\n" +
		"flag --consul-token: arguments are public on a machine, so secrets have no flag; set HOWDAH_CONSUL_TOKEN or name a file that holds it"
	if diff := cmp.Diff(want, got.Error()); diff != "" {
		t.Error(diff)
	}
}

func TestUsageShowsEveryOptionOnce(t *testing.T) {
	o := defaults()
	s := New("howdah sample", &o)
	usage := s.Usage()
	for _, want := range []string{
		"\nSample:\n", "--log-level debug|info|warn\n      how much (default info)", "  --read-only\n", "--name TEXT\n      the name (required)",
		"HOWDAH_CONSUL_TOKEN (environment only)", "--failover-wait TIME\n      how long (default 30s)", "\nConfiguration:\n  --config FILE",
	} {
		if strings.Count(usage, want) != 1 {
			t.Errorf("want %q once in\n%s", want, usage)
		}
	}
}

func TestNearest(t *testing.T) {
	names := []string{"data_dir", "log_level", "log_format", "name"}
	for word, want := range map[string]string{"datadir": "data_dir", "data_dri": "data_dir", "log_lvl": "log_level", "nmae": "name", "frobnicate": "", "x": ""} {
		if got := nearest(word, names); got != want {
			t.Errorf("%s: want %q, got %q", word, want, got)
		}
	}
}

// Whatever stands in a file, Load neither panics nor lets a value through that the rules forbid.
func FuzzYAML(f *testing.F) {
	for _, seed := range []string{"name: a", "name: [a, {b: c}]", "gossip_join: [\"a:1\", b:2]", "max_clients: 1e3", "read_only: off",
		"failover_wait: 9999999h", "a: &x [*x]", "? [a]\n: b", "name: !!binary aGVsbG8=", "<<: {name: a}", "name: |\n  a\n  b\n", "\xff", "1: 2", "~: ~"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, file string) {
		got, err := load(t, []string{"--config=/etc/howdah.yaml"}, nil, file)
		if err != nil {
			if err.Error() == "" {
				t.Fatal("an error that says nothing")
			}
			return
		}
		if got.Name == "" || got.Clients < 1 || got.Clients > 1000 || got.Wait < 0 || got.Wait > time.Hour || got.Token != "" {
			t.Fatalf("let through: %+v", got)
		}
		for _, seed := range got.Seeds {
			if !strings.Contains(seed, ":") {
				t.Fatalf("let through: %q", got.Seeds)
			}
		}
	})
}
