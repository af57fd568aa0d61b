package cmd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"howdah/cmd/options"
	"howdah/cmd/statustable"
	"howdah/consul"
)

const statusLong = `Shows the members of a cluster. Their addresses come from Consul, or from the members named by --api. Each one is
asked itself; one that does not answer within a second is shown as unreachable, with what the others heard of it
last: it may well serve clients that reach it where we do not.`

const statusExample = `howdah status --cluster shop
howdah status --api 10.0.0.1:8008,10.0.0.2:8008`

// consulTimeout bounds the one question that status asks Consul. It and askTimeout are variables for tests, whose machine may be busy.
var consulTimeout = 3 * time.Second

// askTimeout is how long a member may take to say how it is.
var askTimeout = time.Second

// ClusterAccess is how the operator's commands find a cluster.
type ClusterAccess struct {
	// Cluster names it in Consul; with API it may be empty.
	Cluster string
	Consul  ConsulOptions
	// API are addresses of members' APIs, host:port or URL; with them Consul is not asked.
	API []string
	// APICAFile is for members whose API speaks https.
	APICAFile string
}

func (a *ClusterAccess) declare(s *options.Set) {
	s.Group("Cluster")
	s.String(&a.Cluster, "cluster", "the name of the cluster; with --api it may be left out", options.Placeholder("NAME"),
		options.Matches(clusterName.MatchString, "use 1 to 63 of a-z, 0-9 and -, with no - at either end"))
	s.Strings(&a.API, "api", "members' APIs to ask instead of Consul, host:port or URL", options.Placeholder("LIST"),
		options.Matches(isAPIAddress, "want host:port, http://host:port or https://host:port"))
	s.String(&a.APICAFile, "api-ca-file", "PEM certificates of whoever signed the APIs': they speak https", options.Placeholder("FILE"))
	a.Consul.declare(s)
	s.Check(func() []options.Problem {
		if a.Cluster == "" && len(a.API) == 0 {
			return []options.Problem{s.Problem("cluster", "is required to find the members in Consul; or give --api")}
		}
		return nil
	})
}

func isAPIAddress(text string) bool {
	for _, scheme := range []string{"http://", "https://"} {
		text = strings.TrimPrefix(text, scheme)
	}
	return isHostPort(strings.TrimSuffix(text, "/"), 1, true)
}

// Status shows a cluster.
type Status struct {
	ClusterAccess
	// Output is table or json.
	Output string

	stdio Stdio
}

// NewStatus returns a Status with its defaults.
func NewStatus(stdio Stdio) *Status { return &Status{Output: "table", stdio: stdio} }

// Declare implements Command.
func (c *Status) Declare(s *options.Set) {
	c.declare(s)
	declareOutput(s, &c.Output, "table")
}

// Validate returns every mistake at once.
func (c *Status) Validate() error { return options.Validate(c) }

// Run implements Command.
func (c *Status) Run(ctx context.Context) error {
	v, err := c.view("")
	if err != nil {
		return err
	}
	p, err := v.look(ctx)
	if err != nil {
		return err
	}
	if c.Output == "json" {
		return p.WriteJSON(c.stdio.Out)
	}
	return p.WriteTable(c.stdio.Out)
}

// view looks at a cluster again and again.
type view struct {
	a       ClusterAccess
	members *memberAPI
	consul  *consul.Client // nil where only members are asked
	state   statustable.Consul
}

func (a ClusterAccess) view(token options.Secret) (*view, error) {
	members, err := newMemberAPI(a.APICAFile, token)
	if err != nil {
		return nil, err
	}
	v := &view{a: a, members: members}
	if len(a.API) == 0 {
		// The errors say all that a person needs; there is nothing to log.
		v.consul, err = a.Consul.client(a.Cluster, zap.NewNop())
	}
	return v, err
}

// look asks Consul, or nobody, for the members and then each of them. An error means that nothing is known.
func (v *view) look(ctx context.Context) (statustable.Picture, error) {
	targets, err := v.targets(ctx)
	if err != nil {
		return statustable.Picture{}, err
	}
	answers := v.ask(ctx, targets)
	// Members that only others know of are asked too.
	if more := v.unasked(answers, targets); len(more) > 0 {
		answers = append(answers, v.ask(ctx, more)...)
	}
	cluster, err := v.cluster(answers)
	if err != nil {
		return statustable.Picture{}, err
	}
	return statustable.Merge(cluster, v.state, answers), nil
}

// target is a member to ask; its name may not be known yet.
type target struct{ name, address string }

func (v *view) targets(ctx context.Context) ([]target, error) {
	var targets []target
	for _, address := range v.a.API {
		targets = append(targets, target{address: address})
	}
	if v.consul == nil {
		return targets, nil
	}
	asking, cancel := context.WithTimeout(ctx, consulTimeout)
	defer cancel()
	state, err := v.consul.ReadState(asking)
	if err != nil {
		return nil, fmt.Errorf("%w; if Consul is away, name members with --api host:port", err)
	}
	if !state.Leader.Exists && !state.Initialize.Exists && len(state.Members) == 0 {
		return nil, v.unknownCluster(ctx)
	}
	v.state = statustable.Consul{Asked: true, State: state}
	for _, doc := range state.Members {
		targets = append(targets, target{name: doc.Value.Name, address: doc.Value.Addresses.API})
	}
	if l := state.Leader.Leader; l.Member != "" && !slices.ContainsFunc(targets, func(t target) bool { return t.name == l.Member }) {
		targets = append(targets, target{name: l.Member, address: l.Addresses.API})
	}
	return targets, nil
}

func (v *view) unknownCluster(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, consulTimeout)
	defer cancel()
	names, err := v.consul.Clusters(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("cluster %q is not known to Consul at %s (and which are known it does not say: %w)", v.a.Cluster, v.consul.Address(), err)
	case len(names) == 0:
		return fmt.Errorf("cluster %q is not known to Consul at %s, nor is any other", v.a.Cluster, v.consul.Address())
	}
	return fmt.Errorf("cluster %q is not known to Consul at %s; it knows %s", v.a.Cluster, v.consul.Address(), strings.Join(names, ", "))
}

// ask asks all targets at once.
func (v *view) ask(ctx context.Context, targets []target) []statustable.Answer {
	answers := make([]statustable.Answer, len(targets))
	var wg sync.WaitGroup
	for i, t := range targets {
		wg.Go(func() {
			answers[i] = statustable.Answer{Member: t.name}
			if t.address == "" {
				answers[i].Err = "its API address is not known"
				return
			}
			s, err := v.members.status(ctx, t.address)
			switch {
			case err != nil:
				answers[i].Err = fmt.Sprintf("%s: %v", t.address, err)
			case t.name != "" && s.Member != t.name:
				answers[i].Err = fmt.Sprintf("%s: member %s of cluster %s answers there", t.address, s.Member, s.Cluster)
			default:
				answers[i].Member, answers[i].Status = s.Member, s
			}
		})
	}
	wg.Wait()
	return answers
}

func (v *view) unasked(answers []statustable.Answer, asked []target) []target {
	known := map[string]bool{}
	for _, t := range asked {
		known[t.name] = true
	}
	for _, a := range answers {
		known[a.Member] = true
	}
	var more []target
	for _, a := range answers {
		if a.Status == nil {
			continue
		}
		for _, m := range a.Status.Members {
			if !known[m.Name] && m.Addresses.API != "" {
				known[m.Name] = true
				more = append(more, target{name: m.Name, address: m.Addresses.API})
			}
		}
	}
	return more
}

// cluster returns the name of the cluster, or an error where the answers are of another, or there is none at all.
func (v *view) cluster(answers []statustable.Answer) (string, error) {
	name := v.a.Cluster
	var failures []error
	for _, a := range answers {
		if a.Status == nil {
			failures = append(failures, errors.New(a.Err))
			continue
		}
		if name == "" {
			name = a.Status.Cluster
		}
		if a.Status.Cluster != name {
			return "", fmt.Errorf("member %s is of cluster %s and not of %s", a.Member, a.Status.Cluster, name)
		}
	}
	if v.consul == nil && len(failures) == len(answers) {
		return "", fmt.Errorf("no member answers:\n%w", errors.Join(failures...))
	}
	return name, nil
}
