package api

import (
	"net/http"
	"strconv"
	"strings"

	"howdah/consul/schema"
)

// check answers a question about this member; an error means that the question is wrong.
type check func(schema.ClusterStatus, *http.Request) (bool, error)

func (h *handler) checks() map[string]check {
	alive := func(schema.ClusterStatus, *http.Request) (bool, error) { return h.source.Healthy(), nil }
	return map[string]check{
		"/{$}":        isPrimary,
		"/primary":    isPrimary,
		"/master":     isPrimary,
		"/leader":     isPrimary,
		"/read-write": isPrimary,
		"/standby":    isStandby,
		"/replica":    isStandby,
		"/read-only":  isEither(isStandby),
		"/readiness":  isEither(isReadyStandby),
		"/health":     acceptsConnections,
		"/liveness":   alive,
	}
}

// checked is the body of an answer to GET: what Patroni calls the status of the node.
type checked struct {
	schema.Status
	HoldsLock bool `json:"holds_lock"`
}

func (h *handler) check(yes check) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodGet, http.MethodHead, http.MethodOptions:
		default:
			w.Header().Set("Allow", "GET, HEAD, OPTIONS")
			refuse(w, http.StatusMethodNotAllowed, "use GET, HEAD or OPTIONS")
			return
		}
		status := h.source.Status()
		code := http.StatusServiceUnavailable
		ok, err := yes(status, r)
		switch {
		case err != nil:
			refuse(w, http.StatusBadRequest, err.Error())
			return
		case ok:
			code = http.StatusOK
		}
		if r.Method == http.MethodGet {
			answer(w, code, checked{Status: status.Self, HoldsLock: status.HoldsLock})
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(code)
	}
}

// isPrimary needs the lock and its lease as well as a Postgres that says so: either alone may be out of date.
func isPrimary(s schema.ClusterStatus, _ *http.Request) (bool, error) {
	return s.HoldsLock && s.Self.Role == schema.RolePrimary && s.Self.State == schema.StateRunning, nil
}

func isStreaming(s schema.ClusterStatus) bool {
	return s.Self.Role == schema.RoleStandby && s.Self.State == schema.StateStreaming
}

// isStandby is for balancing reads: ?lag=16MB bounds what has not been replayed.
func isStandby(s schema.ClusterStatus, r *http.Request) (bool, error) {
	near, err := withinLag(s, r)
	return err == nil && near && isStreaming(s) && !s.Self.Tags.NoLoadBalance, err
}

// isReadyStandby is for Kubernetes: a standby kept free of reads is ready all the same.
func isReadyStandby(s schema.ClusterStatus, r *http.Request) (bool, error) {
	near, err := withinLag(s, r)
	return err == nil && near && isStreaming(s), err
}

func isEither(standby check) check {
	return func(s schema.ClusterStatus, r *http.Request) (bool, error) {
		if yes, err := isPrimary(s, r); yes || err != nil {
			return yes, err
		}
		return standby(s, r)
	}
}

func acceptsConnections(s schema.ClusterStatus, _ *http.Request) (bool, error) {
	switch s.Self.State {
	case schema.StateRunning, schema.StateStreaming, schema.StatePromoting:
		return true, nil
	}
	return false, nil
}

// withinLag applies ?lag=. A position that is not known is not within any bound (I5).
func withinLag(s schema.ClusterStatus, r *http.Request) (bool, error) {
	text := r.URL.Query().Get("lag")
	if text == "" {
		return true, nil
	}
	bound, err := parseSize(text)
	if err != nil {
		return false, err
	}
	lag, known := replayLag(s)
	return known && lag <= bound, nil
}

// replayLag is how many bytes of what the primary published last this member has not replayed.
func replayLag(s schema.ClusterStatus) (bytes uint64, known bool) {
	var end schema.LSN
	if s.Leader != nil {
		end = s.Leader.FlushLSN
	}
	for _, m := range s.Members {
		if m.Role == schema.RolePrimary && s.Leader != nil && m.Epoch == s.Leader.Epoch {
			end = max(end, m.LSN)
		}
	}
	if end == 0 || s.Self.ReplayLSN == 0 {
		return 0, false
	}
	return s.Self.ReplayLSN.Behind(end), true
}

// parseSize reads 1048576, 16kB, 64MB, 1GB and 1TB, with PostgreSQL's units of 1024.
func parseSize(text string) (uint64, error) {
	digits := strings.TrimRight(text, "kKMGTB ")
	shifts := map[string]uint{"": 0, "B": 0, "kB": 10, "KB": 10, "MB": 20, "GB": 30, "TB": 40}
	shift, known := shifts[strings.TrimSpace(text[len(digits):])]
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || !known || n > 1<<63>>shift {
		return 0, badParameter{key: "lag", value: text, allowed: "a number of bytes, or one with kB, MB, GB or TB"}
	}
	return n << shift, nil
}
