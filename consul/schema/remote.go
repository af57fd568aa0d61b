package schema

import (
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Remote is a primary outside of the cluster. howdah's roles exist there, with the passwords of this cluster's secrets: what
// a standby cluster has are the remote's roles.
type Remote struct {
	// Host is a name or an address; several, with commas between them, are not allowed: use a name that moves.
	Host string `json:"host"`
	Port int    `json:"port"`
	// Slot is a physical replication slot that exists there; empty for none. The one member that follows the remote uses it.
	Slot string `json:"slot,omitempty"`
	// SSLMode is libpq's sslmode: disable, allow, prefer or require; empty is prefer.
	SSLMode string `json:"sslmode,omitempty"`
}

// remoteSlot is what a slot may be called (ReplicationSlotValidateName, src/backend/replication/slot.c).
var remoteSlot = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// Set reports whether there is a remote.
func (r Remote) Set() bool { return r != Remote{} }

// Address returns host:port; empty where there is no remote.
func (r Remote) Address() string {
	if !r.Set() {
		return ""
	}
	return net.JoinHostPort(r.Host, strconv.Itoa(r.Port))
}

func (r Remote) validate() []error {
	var errs []error
	if !r.Set() {
		return nil
	}
	if r.Host == "" || strings.ContainsAny(r.Host, ", \t\r\n\x00/") {
		errs = append(errs, fmt.Errorf("follow: the host %q is not allowed; give one name or address, such as host: db1.example.com", r.Host))
	}
	if r.Port < 1 || r.Port > 65535 {
		errs = append(errs, fmt.Errorf("follow: the port %d is not allowed; choose from 1 to 65535", r.Port))
	}
	if r.Slot != "" && !remoteSlot.MatchString(r.Slot) {
		errs = append(errs, fmt.Errorf("follow: the slot %q is not allowed; a slot's name has a-z, 0-9 and _, 63 at most", r.Slot))
	}
	if modes := []string{"", "disable", "allow", "prefer", "require"}; !slices.Contains(modes, r.SSLMode) {
		errs = append(errs, fmt.Errorf("follow: the sslmode %q is not allowed; choose disable, allow, prefer or require", r.SSLMode))
	}
	return errs
}
