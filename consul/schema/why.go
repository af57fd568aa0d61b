package schema

import "time"

// Evidence is what a step rested on, as its recorder saw it.
type Evidence struct {
	// Judgement is why the lease was counted as dead; nil where it was released, or never there.
	Judgement *Judgement `json:"judgement,omitempty"`
	// Candidates are all members, the recorder first, then by name.
	Candidates []Candidate `json:"candidates,omitempty"`
}

// Judgement is what was known of a lease that was counted as dead.
type Judgement struct {
	Holder string `json:"holder"`
	Epoch  Epoch  `json:"epoch"`
	// Index is the leader key's ModifyIndex, first seen Unrenewed ago; Lease is what it was for.
	Index     uint64   `json:"index"`
	Unrenewed Duration `json:"unrenewed"`
	Lease     Duration `json:"lease"`
	// ReadAgo is how long before the decision the consistent read that still showed Index was asked for.
	ReadAgo Duration `json:"read_ago"`
	// HeardAgo is how old the newest gossip of the holder was, negative if there was none; Liveness is gossip's opinion of it.
	HeardAgo Duration `json:"heard_ago"`
	Liveness Liveness `json:"liveness"`
}

// Candidate is a member as somebody who may have stood, or may stand.
type Candidate struct {
	Member   string   `json:"member"`
	LSN      LSN      `json:"lsn"`
	Timeline Timeline `json:"timeline"`
	Priority int      `json:"priority,omitempty"`
	// Bar is why it may not become the primary; empty if it may.
	Bar string `json:"bar,omitempty"`
}

// Account is what one member has to say about why things are as they are: GET /why on its API.
type Account struct {
	Cluster string    `json:"cluster"`
	Member  string    `json:"member"`
	At      time.Time `json:"at"` // wall clock, for people only
	State   State     `json:"state"`
	Reason  string    `json:"reason,omitempty"`
	// Holds says that the member reigns, in Epoch.
	Holds bool  `json:"holds"`
	Epoch Epoch `json:"epoch"`
	// Candidates are all members as this one judges them now, itself first: whether each might become the primary.
	Candidates []Candidate `json:"candidates"`
	// Events are what it has recorded, oldest first; the sidecar's restarts do not end them.
	Events []Event `json:"events"`
}
