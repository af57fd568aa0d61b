package cmd

import (
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"howdah/cmd/options"
	"howdah/consul"
	"howdah/consul/boottime"
)

// LogOptions say what is logged and how.
type LogOptions struct{ Level, Format string }

func defaultLog() LogOptions { return LogOptions{Level: "info", Format: "console"} }

func (o *LogOptions) declare(s *options.Set) {
	s.Group("Logging")
	s.String(&o.Level, "log-level", "how much is logged", options.OneOf("debug", "info", "warn", "error"))
	s.String(&o.Format, "log-format", "how: console for people, json for collectors", options.OneOf("console", "json"))
}

// logger writes to w, one line for each entry. It never waits for w; Sync does, for a moment.
func (o LogOptions) logger(w io.Writer) (*zap.Logger, error) {
	log, _, err := o.leveled(w)
	return log, err
}

// leveled is logger, with the level to change.
func (o LogOptions) leveled(w io.Writer) (*zap.Logger, zap.AtomicLevel, error) {
	level, err := zap.ParseAtomicLevel(o.Level)
	if err != nil {
		return nil, level, fmt.Errorf("log-level: %w", err)
	}
	encoding := zap.NewProductionEncoderConfig()
	encoding.EncodeTime = zapcore.ISO8601TimeEncoder
	encoding.EncodeDuration = zapcore.StringDurationEncoder
	encoding.TimeKey = "time"
	encoder := zapcore.NewConsoleEncoder(encoding)
	if o.Format == "json" {
		encoding.EncodeTime = zapcore.RFC3339NanoTimeEncoder
		encoder = zapcore.NewJSONEncoder(encoding)
	}
	return zap.New(zapcore.NewCore(encoder, newLogQueue(w), level)), level, nil
}

// ConsulOptions say where Consul is and who asks. Empty ones are Consul's own (CONSUL_HTTP_ADDR and kin).
type ConsulOptions struct {
	Addr                                 string
	Token                                options.Secret
	TokenFile, CAFile, CertFile, KeyFile string
	Namespace, Partition, Datacenter     string
}

func (o *ConsulOptions) declare(s *options.Set) {
	s.Group("Consul")
	s.String(&o.Addr, "consul-addr", "where Consul is: host:port, http://, https:// or unix://; without it CONSUL_HTTP_ADDR or 127.0.0.1:8500", options.Placeholder("URL"))
	s.String(&o.TokenFile, "consul-token-file", "a file with the ACL token", options.Placeholder("FILE"))
	s.Secret(&o.Token, "consul-token", "the ACL token itself")
	s.String(&o.CAFile, "consul-ca-file", "PEM certificates of whoever signed Consul's", options.Placeholder("FILE"))
	s.String(&o.CertFile, "consul-cert-file", "our PEM certificate for Consul", options.Placeholder("FILE"))
	s.String(&o.KeyFile, "consul-key-file", "the PEM key that goes with it", options.Placeholder("FILE"))
	s.String(&o.Namespace, "consul-namespace", "Consul Enterprise's namespace", options.Placeholder("NAME"))
	s.String(&o.Partition, "consul-partition", "Consul Enterprise's partition", options.Placeholder("NAME"))
	s.String(&o.Datacenter, "consul-datacenter", "the datacenter whose servers keep the lock; without it the agent's", options.Placeholder("NAME"))
	s.Check(func() []options.Problem {
		var found []options.Problem
		if o.Token != "" && o.TokenFile != "" {
			found = append(found, s.Problem("consul-token-file", "the token is given by "+options.EnvironmentName("consul-token")+" too; give one of them"))
		}
		return append(found, pair(s, "consul-cert-file", o.CertFile, "consul-key-file", o.KeyFile)...)
	})
}

// declareOutput declares the form of what a command shows: that for people, or json for scripts.
func declareOutput(s *options.Set, p *string, people string) {
	s.Group("Output")
	s.String(p, "output", "how it is shown: "+people+" for people, json for scripts", options.Short("o"), options.OneOf(people, "json"))
}

// pair says that two options go together.
func pair(s *options.Set, aName, a, bName, b string) []options.Problem {
	switch {
	case a != "" && b == "":
		return []options.Problem{s.Problem(bName, "is required with --"+aName)}
	case a == "" && b != "":
		return []options.Problem{s.Problem(aName, "is required with --"+bName)}
	}
	return nil
}

func (o ConsulOptions) client(cluster string, log *zap.Logger) (*consul.Client, error) {
	return consul.New(consul.Options{
		Address: o.Addr, Token: o.Token.Reveal(), TokenFile: o.TokenFile, CAFile: o.CAFile, CertFile: o.CertFile, KeyFile: o.KeyFile,
		Namespace: o.Namespace, Partition: o.Partition, Datacenter: o.Datacenter, Cluster: cluster,
	}, boottime.Now, log.Named("consul"))
}

// GossipOptions say where the gossip is.
type GossipOptions struct {
	Listen, Advertise string
	Join              []string
	KeyFile           string
}

func (o *GossipOptions) declare(s *options.Set, keyUsage string, keyRules ...options.Rule) {
	s.Group("Gossip")
	s.String(&o.Listen, "gossip-listen", "where to listen, UDP and TCP", address, options.Required)
	s.String(&o.Advertise, "gossip-advertise", "where the others reach it, if not there", reachable)
	s.Strings(&o.Join, "gossip-join", "host:port of processes to join; what Consul knows of members is joined too", reachable)
	s.String(&o.KeyFile, "gossip-key-file", keyUsage, append(keyRules, options.Placeholder("FILE"))...)
}

// clusterName and memberName are bounded like the keys in Consul that they become part of; a
// test holds them against package consul's own bounds.
var (
	clusterName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	memberName  = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)
)

func declareCluster(s *options.Set, p *string) {
	s.String(p, "cluster", "the name of the cluster", options.Required, options.Placeholder("NAME"),
		options.Matches(clusterName.MatchString, "use 1 to 63 of a-z, 0-9 and -, with no - at either end"))
}

func declareName(s *options.Set, p *string, usage string) {
	s.String(p, "name", usage, options.Required, options.Placeholder("NAME"),
		options.Matches(memberName.MatchString, "use 1 to 63 of letters, digits, dot, _ and -, with a letter or digit at either end"))
}

// address is a place to listen: the host may be missing, and port 0 takes a free one.
func address(o *options.Option) { hostPort(o, 0, false) }

// reachable is a place that others connect to.
func reachable(o *options.Option) { hostPort(o, 1, true) }

func hostPort(o *options.Option, lowest int, host bool) {
	options.Placeholder("HOST:PORT")(o)
	options.Matches(func(text string) bool { return isHostPort(text, lowest, host) }, "want host:port, such as 10.0.0.1:5432")(o)
}

func isHostPort(text string, lowest int, wantHost bool) bool {
	host, port, err := net.SplitHostPort(text)
	if err != nil || strings.ContainsAny(host, " /@") {
		return false
	}
	n, err := strconv.Atoi(port)
	return err == nil && lowest <= n && n <= 65535 && (host != "" || !wantHost)
}

// wildcard reports an address that only says "every interface": nobody can connect to it.
func wildcard(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil || host == "" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsUnspecified()
}
