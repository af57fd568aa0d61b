package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// network is a bridge in a namespace of its own, with a cable to each host. What is cut is dropped on the bridge, so that
// neither end is told.
type network struct {
	prefix    string // of all namespaces: howdah-<run>-
	namespace string // of the bridge
	group     string // the control group above those of the hosts
	hosts     []*Host
}

// subnet is where the hosts are. It exists inside the namespaces only.
const subnet = "10.77.0."

// ruleset drops the pairs of addresses (from, to) in the set cut.
const ruleset = `table bridge howdah {
	set cut { type ipv4_addr . ipv4_addr; }
	chain forward { type filter hook forward priority 0; policy accept; ip saddr . ip daddr @cut drop; }
}
`

func newNetwork(ctx context.Context, id string, cgroup string) (*network, error) {
	n := &network{prefix: "howdah-" + id + "-", group: cgroup + "/howdah-" + id}
	n.namespace = n.prefix + "net"
	if err := run(ctx, "", "ip", "netns", "add", n.namespace); err != nil {
		return nil, fmt.Errorf("a network namespace cannot be made, which takes root and CAP_SYS_ADMIN: %w", err)
	}
	err := errors.Join(
		run(ctx, "link add bridge type bridge forward_delay 0\nlink set bridge up\n", "ip", "-n", n.namespace, "-batch", "-"),
		run(ctx, ruleset, "ip", "netns", "exec", n.namespace, "nft", "-f", "-"),
	)
	return n, err
}

// add makes a host, whose address ends with number.
func (n *network) add(ctx context.Context, name string, number int) (*Host, error) {
	h := &Host{Name: name, Address: fmt.Sprintf("%s%d", subnet, number), namespace: n.prefix + name, group: n.group + "/" + name}
	if err := run(ctx, "", "ip", "netns", "add", h.namespace); err != nil {
		return nil, err
	}
	n.hosts = append(n.hosts, h)
	cable := fmt.Sprintf("link add name %s type veth peer name eth0 netns %s\nlink set dev %s master bridge\nlink set dev %s up\n", name, h.namespace, name, name)
	inside := fmt.Sprintf("link set lo up\naddr add %s/24 dev eth0\nlink set eth0 up\n", h.Address)
	return h, errors.Join(
		run(ctx, cable, "ip", "-n", n.namespace, "-batch", "-"),
		run(ctx, inside, "ip", "-n", h.namespace, "-batch", "-"),
		h.open(),
	)
}

// pair is one direction between two hosts.
type pair struct{ from, to *Host }

// cut drops all that goes from one host of a pair to the other, of all pairs at one moment.
func (n *network) cut(ctx context.Context, pairs []pair) error {
	if len(pairs) == 0 {
		return nil
	}
	var all []string
	for _, p := range pairs {
		all = append(all, p.from.Address+" . "+p.to.Address)
	}
	slices.Sort(all)
	rule := "add element bridge howdah cut { " + strings.Join(slices.Compact(all), ", ") + " }\n"
	return run(ctx, rule, "ip", "netns", "exec", n.namespace, "nft", "-f", "-")
}

// heal ends every cut.
func (n *network) heal(ctx context.Context) error {
	return run(ctx, "flush set bridge howdah cut\n", "ip", "netns", "exec", n.namespace, "nft", "-f", "-")
}
