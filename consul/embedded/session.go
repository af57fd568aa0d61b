package embedded

import (
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
)

// Consul's rules for sessions: agent/structs/structs.go and session_ttl_min's default.
const (
	sessionTTLMin        = 10 * time.Second
	sessionTTLMax        = 24 * time.Hour
	sessionTTLMultiplier = 2 // a session lives on for twice the TTL, to be lenient
	defaultLockDelay     = 15 * time.Second
	maxLockDelay         = time.Minute
	lockDelaySeconds     = 1000 // a bare number below this counts seconds
)

// session is Consul's structs.Session in JSON.
type session struct {
	ID            string
	Name          string
	Node          string
	LockDelay     time.Duration
	Behavior      string
	TTL           string
	NodeChecks    []string
	ServiceChecks []string
	CreateIndex   uint64
	ModifyIndex   uint64

	ttl      time.Duration
	deadline time.Time
	timer    *time.Timer
}

// parseSession reads the body of session/create. Its checks are accepted and never fail.
func parseSession(body []byte, node string) (*session, error) {
	in := struct {
		session
		LockDelay any
	}{session: session{Node: node, Behavior: "release", NodeChecks: []string{"serfHealth"}}}
	if len(body) > 0 {
		if err := decode(body, &in); err != nil {
			return nil, &httpError{400, fmt.Sprintf("Request decode failed: %v", err)}
		}
	}
	s := in.session
	var err error
	if s.LockDelay, err = parseLockDelay(in.LockDelay); err != nil {
		return nil, &httpError{400, fmt.Sprintf("Request decode failed: %v", err)}
	}
	if s.Node != node {
		return nil, errors.New("apply failed: Missing node registration")
	}
	switch s.Behavior {
	case "":
		s.Behavior = "release"
	case "release", "delete":
	default:
		return nil, asConsul("Invalid Behavior setting '%s'", s.Behavior)
	}
	if s.TTL != "" {
		if s.ttl, err = time.ParseDuration(s.TTL); err != nil {
			return nil, asConsul("Session TTL '%s' invalid: %v", s.TTL, err)
		}
		if s.ttl != 0 && (s.ttl < sessionTTLMin || s.ttl > sessionTTLMax) {
			return nil, asConsul("Invalid Session TTL '%d', must be between [%v=%v]", s.ttl, sessionTTLMin, sessionTTLMax)
		}
	}
	s.ID = newUUID()
	return &s, nil
}

func parseLockDelay(v any) (time.Duration, error) {
	d := defaultLockDelay
	switch v := v.(type) {
	case string:
		var err error
		if d, err = time.ParseDuration(v); err != nil {
			return 0, err
		}
	case float64:
		d = time.Duration(v)
	}
	if d < lockDelaySeconds {
		d *= time.Second
	}
	return min(d, maxLockDelay), nil
}

func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, see its documentation
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// addSession stores in and starts its clock. The mutex is held.
func (s *Server) addSession(in *session) {
	s.store.index++
	s.store.sessIndex = s.store.index
	in.CreateIndex, in.ModifyIndex = s.store.index, s.store.index
	s.store.sessions[in.ID] = in
	if in.ttl > 0 {
		life := sessionTTLMultiplier * in.ttl
		in.deadline = time.Now().Add(life)
		in.timer = time.AfterFunc(life, func() { s.expire(in) })
	}
	s.announce()
}

// renew gives the session its full time again. The mutex is held.
func (in *session) renew() {
	if in.timer != nil {
		life := sessionTTLMultiplier * in.ttl
		in.deadline = time.Now().Add(life)
		in.timer.Reset(life)
	}
}

// expire ends the session if its time is over: the timer may have fired just as a renewal came.
func (s *Server) expire(in *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.store.sessions[in.ID] != in {
		return
	}
	if left := time.Until(in.deadline); left > 0 {
		in.timer.Reset(left)
		return
	}
	s.log.Info("session expired", zap.String("session", in.ID), zap.String("name", in.Name))
	s.endSession(in)
}

// endSession frees or deletes what the session holds, and delays the next lock. The mutex is held.
func (s *Server) endSession(in *session) {
	if in.timer != nil {
		in.timer.Stop()
	}
	delete(s.store.sessions, in.ID)
	t := s.store.begin()
	now := time.Now()
	for k, p := range s.store.kvs {
		if p.Session != in.ID {
			continue
		}
		if in.Behavior == "delete" {
			t.remove(k)
		} else {
			p.Session = ""
			t.put(p)
		}
		if in.LockDelay > 0 {
			s.store.delays[k] = now.Add(in.LockDelay)
		}
	}
	t.commit()
	s.store.sessIndex = s.store.index
	s.announce()
}
