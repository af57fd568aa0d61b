package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"

	"howdah/consul/schema"
)

// SwitchoverRequest is the body of POST /switchover.
type SwitchoverRequest struct {
	// To is the member wanted; empty for the best candidate.
	To string `json:"to,omitempty"`
}

// SwitchoverReply is the body of its answer, code 202: the wish is recorded. GET /status shows how it ends.
type SwitchoverReply struct {
	// From is the primary and Epoch its epoch when the wish was recorded.
	From  string       `json:"from"`
	Epoch schema.Epoch `json:"epoch"`
	To    string       `json:"to,omitempty"`
}

// switchoverTimeout bounds the recording, not the switchover.
const switchoverTimeout = 10 * time.Second

func (h *handler) switchover(w http.ResponseWriter, r *http.Request) {
	if h.stopUnauthorized(w, r) {
		return
	}
	var wish SwitchoverRequest
	if code, err := readBody(w, r, `{"to":"NAME"} or nothing`, &wish); err != nil {
		refuse(w, code, err.Error())
		return
	}
	before := h.source.Status()
	ctx, cancel := context.WithTimeout(r.Context(), switchoverTimeout)
	defer cancel()
	err := h.source.Switchover(ctx, wish.To)
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		refuse(w, http.StatusGatewayTimeout, "it is not known whether the switchover was recorded; look at /status before asking again: "+err.Error())
	case err != nil:
		h.log.Info("switchover refused", zap.String("to", wish.To), zap.Error(err))
		refuse(w, http.StatusPreconditionFailed, err.Error())
	default:
		reply := SwitchoverReply{To: wish.To}
		if before.Leader != nil {
			reply.From, reply.Epoch = before.Leader.Member, before.Leader.Epoch
		}
		h.log.Info("switchover recorded", zap.String("from", reply.From), zap.String("to", wish.To), zap.String("asked_by", r.RemoteAddr))
		answer(w, http.StatusAccepted, reply)
	}
}

// stopUnauthorized refuses a request that may not change anything, and reports whether it did.
func (h *handler) stopUnauthorized(w http.ResponseWriter, r *http.Request) bool {
	why := h.unauthorized(r)
	if why == "" {
		return false
	}
	w.Header().Set("WWW-Authenticate", `Bearer realm="howdah"`)
	refuse(w, http.StatusUnauthorized, why)
	return true
}

// unauthorized returns why the request may not change anything; empty if it may.
func (h *handler) unauthorized(r *http.Request) string {
	if h.token == "" {
		return "this member has no API token, so nothing can be changed through its API; give the sidecar api-token-file or secrets-dir"
	}
	given, isBearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !isBearer {
		return "send the header `Authorization: Bearer TOKEN`, with the token in the file api.token of this member's secrets-dir"
	}
	// Hashing first makes both sides of one length, so that the time tells nothing about the token's.
	want, got := sha256.Sum256([]byte(h.token)), sha256.Sum256([]byte(given))
	if subtle.ConstantTimeCompare(want[:], got[:]) != 1 {
		return "the token is not this cluster's; that is the file api.token in a member's secrets-dir"
	}
	return ""
}

// readBody reads one JSON object, or nothing at all.
func readBody(w http.ResponseWriter, r *http.Request, want string, into any) (code int, err error) {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequestBytes))
	d.DisallowUnknownFields()
	err = d.Decode(into)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.Is(err, io.EOF):
		return 0, nil
	case errors.As(err, &tooLarge):
		return http.StatusRequestEntityTooLarge, errors.New("the request is too large; want at most 4 KiB")
	case err != nil:
		return http.StatusBadRequest, fmt.Errorf("want %s: %w", want, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return http.StatusBadRequest, errors.New("want one JSON object and nothing after it")
	}
	return 0, nil
}
