package detector

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/hashicorp/memberlist"

	"howdah/consul/schema"
)

// metaVersion is the first byte of node metadata. A later version only appends: a
// decoder reads what it knows and passes over the rest.
const metaVersion = 1

// errMeta says that node metadata cannot be written or read.
var errMeta = errors.New("gossip metadata")

// meta is what memberlist's own gossip carries about a process: at most 512 bytes.
//
// Form: version byte, flags byte, kind byte, role byte, then as unsigned varints the epoch and
// the generation, then five strings, each as an unsigned varint of its length and its bytes:
// cluster, instance, and the addresses of Postgres, API and gossip.
type meta struct {
	Leaving    bool
	Kind       string
	Role       schema.Role
	Epoch      schema.Epoch
	Generation uint64
	Cluster    string
	Instance   string
	Addresses  schema.Addresses
}

const flagLeaving = 1

// The codes of kinds and roles stand in packets: never renumber them.
var (
	kindCodes = map[string]byte{KindMember: 1, KindRouter: 2}
	roleCodes = map[schema.Role]byte{schema.RoleUnknown: 0, schema.RolePrimary: 1, schema.RoleStandby: 2}
)

func codeName[K comparable](codes map[K]byte, code byte) (K, bool) {
	for name, c := range codes {
		if c == code {
			return name, true
		}
	}
	var none K
	return none, false
}

// encode returns the compact form; an error if it would not fit or cannot be expressed.
func (m meta) encode() ([]byte, error) {
	kind, ok := kindCodes[m.Kind]
	if !ok {
		return nil, fmt.Errorf("%w: kind %q is not known; use %s or %s", errMeta, m.Kind, KindMember, KindRouter)
	}
	role, ok := roleCodes[m.Role]
	if !ok {
		return nil, fmt.Errorf("%w: role %q is not known", errMeta, m.Role)
	}
	var flags byte
	if m.Leaving {
		flags |= flagLeaving
	}
	b := []byte{metaVersion, flags, kind, role}
	b = binary.AppendUvarint(b, uint64(m.Epoch))
	b = binary.AppendUvarint(b, m.Generation)
	for _, s := range []string{m.Cluster, m.Instance, m.Addresses.Postgres, m.Addresses.API, m.Addresses.Gossip} {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	if len(b) > memberlist.MetaMaxSize {
		return nil, fmt.Errorf("%w: needs %d bytes, %d are allowed: cluster %q has %d bytes, instance %d, postgres address %d, api address %d, gossip address %d; use shorter names or addresses",
			errMeta, len(b), memberlist.MetaMaxSize, m.Cluster, len(m.Cluster), len(m.Instance), len(m.Addresses.Postgres), len(m.Addresses.API), len(m.Addresses.Gossip))
	}
	return b, nil
}

// decodeMeta reads the compact form; it never keeps a reference to b.
func decodeMeta(b []byte) (meta, error) {
	var m meta
	if len(b) > memberlist.MetaMaxSize {
		return m, fmt.Errorf("%w: %d bytes, at most %d are allowed", errMeta, len(b), memberlist.MetaMaxSize)
	}
	if len(b) < 4 || b[0] < metaVersion {
		return m, fmt.Errorf("%w: not howdah's", errMeta)
	}
	m.Leaving = b[1]&flagLeaving != 0
	var ok bool
	if m.Kind, ok = codeName(kindCodes, b[2]); !ok {
		return m, fmt.Errorf("%w: kind %d is not known", errMeta, b[2])
	}
	if m.Role, ok = codeName(roleCodes, b[3]); !ok {
		return m, fmt.Errorf("%w: role %d is not known", errMeta, b[3])
	}
	b = b[4:]
	number := func() (uint64, error) {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return 0, fmt.Errorf("%w: cut off in a number", errMeta)
		}
		b = b[n:]
		return v, nil
	}
	epoch, err := number()
	if err != nil {
		return m, err
	}
	m.Epoch = schema.Epoch(epoch)
	if m.Generation, err = number(); err != nil {
		return m, err
	}
	for _, s := range []*string{&m.Cluster, &m.Instance, &m.Addresses.Postgres, &m.Addresses.API, &m.Addresses.Gossip} {
		n, err := number()
		if err != nil {
			return m, err
		}
		if n > uint64(len(b)) {
			return m, fmt.Errorf("%w: cut off in a string", errMeta)
		}
		*s, b = string(b[:n]), b[n:]
	}
	return m, nil
}
