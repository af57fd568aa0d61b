package detector

import (
	"encoding/json"
	"errors"
	"fmt"

	"howdah/consul/schema"
)

// wireVersion stands in every message. A change that an older reader may not pass over gets a new one.
const wireVersion = 1

// The kinds of message. They stand in packets: never rename them.
const (
	messageHello  = "hello" // of a process that has no status yet
	messageStatus = "status"
	messageAsk    = "ask"
	messageAnswer = "answer"
	// A cancel request that one router passes on to another, and that it was carried out.
	messageCancel    = "cancel"
	messageCancelled = "cancelled"
)

var (
	errMalformed = errors.New("malformed gossip message")
	errForeign   = errors.New("gossip of another cluster")
)

// message is one packet, or one TCP message, from one process to another.
type message struct {
	Version    int    `json:"v"`
	Kind       string `json:"k"`
	Cluster    string `json:"c"`
	From       string `json:"f"`
	Generation uint64 `json:"g"`
	// Number and Status are those of messageStatus.
	Number uint64         `json:"n,omitempty"`
	Status *schema.Status `json:"s,omitempty"`
	// ID names a question, in all kinds below; it is unique in one Generation of the asker.
	ID uint64 `json:"i,omitempty"`
	// To is the member that is asked, ReplyTo the asker's gossip address, Attempt counts from 1.
	To      string                 `json:"t,omitempty"`
	ReplyTo string                 `json:"r,omitempty"`
	Attempt int                    `json:"a,omitempty"`
	Ask     *schema.PromiseRequest `json:"q,omitempty"`
	Answer  *schema.PromiseReply   `json:"p,omitempty"`
	// Key is the cancel key in messageCancel. In messageCancelled, Found says that it was a session's, Dropped that nobody looked.
	Key     []byte `json:"x,omitempty"`
	Found   bool   `json:"y,omitempty"`
	Dropped bool   `json:"z,omitempty"`
}

// held is a status with its place in the order of statuses.
type held struct {
	Generation uint64        `json:"g"`
	Number     uint64        `json:"n"`
	Kind       string        `json:"k,omitempty"`
	Status     schema.Status `json:"s"`
	// Age is how old the status was when the state was written; HeardAt is this machine's.
	Age     schema.Duration `json:"age"`
	HeardAt schema.Instant  `json:"-"`
}

// newer reports whether h replaces o.
func (h held) newer(o held) bool {
	if h.Generation != o.Generation {
		return h.Generation > o.Generation
	}
	return h.Number > o.Number
}

// fullState is what a push/pull exchange carries: the newest status of every process that is known.
type fullState struct {
	Version  int    `json:"v"`
	Cluster  string `json:"c"`
	From     string `json:"f"`
	Statuses []held `json:"s"`
}

// maxStateStatuses bounds what is taken from one exchange.
const maxStateStatuses = 4096

// encodeJSON cannot fail for the types above: they hold strings, numbers and text marshalers that do not fail.
func encodeJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("gossip message cannot be written: " + err.Error())
	}
	return b
}

func decodeMessage(b []byte, cluster string) (message, error) {
	var m message
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("%w: %w", errMalformed, err)
	}
	if m.Cluster != cluster {
		return m, fmt.Errorf("%w: %q", errForeign, m.Cluster)
	}
	if m.Version != wireVersion {
		return m, fmt.Errorf("%w: version %d, this howdah reads %d", errMalformed, m.Version, wireVersion)
	}
	ok := m.From != ""
	switch m.Kind {
	case messageHello:
	case messageStatus:
		ok = ok && m.Status != nil && m.Status.Name == m.From && m.Status.Cluster == cluster
	case messageAsk:
		ok = ok && m.Ask != nil && m.To != "" && m.ReplyTo != ""
	case messageAnswer:
		ok = ok && m.Answer != nil
	case messageCancel:
		ok = ok && len(m.Key) > 0 && m.To != "" && m.ReplyTo != ""
	case messageCancelled:
	default:
		ok = false
	}
	if !ok {
		return m, fmt.Errorf("%w: kind %q from %q lacks what it must have", errMalformed, m.Kind, m.From)
	}
	return m, nil
}

func decodeState(b []byte, cluster string) (fullState, error) {
	var s fullState
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("%w: %w", errMalformed, err)
	}
	if s.Cluster != cluster {
		return s, fmt.Errorf("%w: %q", errForeign, s.Cluster)
	}
	if s.Version != wireVersion || len(s.Statuses) > maxStateStatuses {
		return s, fmt.Errorf("%w: state of version %d with %d statuses", errMalformed, s.Version, len(s.Statuses))
	}
	for _, h := range s.Statuses {
		if h.Status.Name == "" || h.Status.Cluster != cluster || h.Age < 0 {
			return s, fmt.Errorf("%w: state from %q holds a status of %q in cluster %q", errMalformed, s.From, h.Status.Name, h.Status.Cluster)
		}
	}
	return s, nil
}
