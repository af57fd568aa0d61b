package router

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"howdah/router/own"
)

// A session's connection to a standby is made later than the session began, and logs in with the settings of roles and databases (ALTER ROLE ... SET) as they are
// there and then. It is used only if they are those that the session began with: the rows of pg_db_role_setting are compared, as the router read them
// before the session logged in and as the standby has them. Parameters that servers report are compared as well, and put right where SET can do that.

// errUnlike is a standby whose connection is not like the session's to the primary.
var errUnlike = errors.New("a connection to this standby has other settings than the session")

// begunAlike returns an error if roles and databases have set something else for a new connection to a standby than for the session.
func (c *client) begunAlike(rd *reader) error {
	if c.r.asks.settings == nil {
		return nil
	}
	there, err := rd.value([]byte(own.LoginMarkQuery))
	if err == nil && there != c.began {
		err = errUnlike
	}
	return err
}

// value asks for one value.
func (rd *reader) value(query []byte) (string, error) {
	value, rows := "", 0
	err := rd.exec(query, func(row []byte) error {
		if len(row) < 6 || binary.BigEndian.Uint16(row) != 1 || uint64(binary.BigEndian.Uint32(row[2:])) != uint64(len(row)-6) {
			return errors.New("a row is not what was asked for")
		}
		value = string(row[6:])
		rows++
		return nil
	})
	if err == nil && rows != 1 {
		err = fmt.Errorf("%d rows for one value", rows)
	}
	return value, err
}

// fixed are the parameters that no SET puts right. Those of the role are followed by statements of the session's own.
var fixed = []string{"server_version", "server_encoding", "integer_datetimes", "session_authorization", "is_superuser"}

// align gives the standby the parameters that the primary reports for the session. It returns errUnlike where that cannot be, any other error is the connection's.
func (a *auto) align(rd *reader) error {
	if rd.aligned == a.toldNow && !rd.reports.changed {
		return nil
	}
	wrong := map[string]string{}
	rd.reports.changed = false // what is reported from here on is compared before the next read
	a.c.mu.Lock()
	for _, told := range a.told {
		name, value := told.Value().name, told.Value().value
		if there, known := rd.reports.values.get(name); known && there != value {
			wrong[name] = value
		}
	}
	a.c.mu.Unlock()
	for name, value := range wrong {
		there, _ := rd.reports.values.get(name)
		switch {
		case name == "in_hot_standby", name == "server_version" && major(there) == major(value):
			continue
		case slices.Contains(fixed, name), strings.IndexFunc(value, func(r rune) bool { return r >= 0x80 }) >= 0:
			return fmt.Errorf("%w: %s", errUnlike, name)
		}
		err := rd.exec([]byte("SELECT pg_catalog.set_config("+literal(name)+", "+literal(value)+", false)"), nil)
		if said := (errSaid{}); errors.As(err, &said) { // which may quote what the client has said
			return fmt.Errorf("%w: %s, which it does not take (%s)", errUnlike, name, said.code)
		} else if err != nil {
			return err
		}
	}
	rd.aligned = a.toldNow
	return nil
}

// literal writes ASCII text as a constant, whatever standard_conforming_strings is.
func literal(text string) string {
	return "E'" + strings.NewReplacer(`\`, `\\`, "'", "''").Replace(text) + "'"
}

// reports are the parameters that a server has reported for a connection.
type reports struct {
	values  parameters
	changed bool // since they were compared
}

func (r *reports) told(name, value []byte) {
	r.values.set(name, value)
	r.changed = true
}
