package consul

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/hashicorp/consul/api"

	"howdah/consul/schema"
)

// How the agent asks a member's API whether it is what its tags say.
const (
	checkInterval = time.Second
	checkTimeout  = time.Second
)

// Service is what the Consul agent announces for one member.
type Service struct {
	ID, Name string
	// Address and Port are where Postgres is reached.
	Address string
	Port    int
	Tags    []string
	// CheckURL is asked by the agent every second; 2xx is healthy. Only healthy services resolve.
	CheckURL string
	// Passing makes the service healthy until the first check, for a member that knows that it is.
	Passing bool
}

// MemberService is the service of a member of the cluster in a role: named <cluster>, so that
// primary.<cluster>.service.consul resolves, with ID <cluster>-<member>. postgres is host:port.
func (c *Client) MemberService(member string, role schema.Role, postgres, checkURL string) (Service, error) {
	host, portText, err := net.SplitHostPort(postgres)
	if err != nil {
		return Service{}, fmt.Errorf("postgres address %q: want host:port: %w", postgres, err)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return Service{}, fmt.Errorf("postgres address %q: want a port from 1 to 65535", postgres)
	}
	s := Service{ID: c.cluster + "-" + member, Name: c.cluster, Address: host, Port: int(port), CheckURL: checkURL}
	switch role {
	case schema.RolePrimary:
		s.Tags = []string{"primary", "master"}
	case schema.RoleStandby:
		s.Tags = []string{"standby", "replica"}
	case schema.RoleUnknown: // announced without a tag: nobody is sent there by role
	}
	return s, nil
}

// Register announces s at the agent, in place of what was announced under its ID. An agent forgets
// nothing over its restarts, but a new agent knows nothing: register again from time to time.
func (c *Client) Register(ctx context.Context, s Service) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	status := api.HealthCritical
	if s.Passing {
		status = api.HealthPassing
	}
	reg := &api.AgentServiceRegistration{
		ID: s.ID, Name: s.Name, Address: s.Address, Port: s.Port, Tags: s.Tags,
		Namespace: c.namespace, Partition: c.partition,
		Check: &api.AgentServiceCheck{
			CheckID: "service:" + s.ID, Name: "howdah member", HTTP: s.CheckURL, Method: "GET",
			Interval: checkInterval.String(), Timeout: checkTimeout.String(), Status: status,
		},
	}
	err := c.api.Agent().ServiceRegisterOpts(reg, api.ServiceRegisterOpts{ReplaceExistingChecks: true}.WithContext(ctx))
	return c.fail("register service "+s.ID, areaService, err)
}

// Deregister takes back the announcement. One that the agent does not know is no error.
func (c *Client) Deregister(ctx context.Context, id string) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	err := c.api.Agent().ServiceDeregisterOpts(id, (&api.QueryOptions{}).WithContext(ctx))
	if isUnknownService(err) {
		return nil
	}
	return c.fail("deregister service "+id, areaService, err)
}
