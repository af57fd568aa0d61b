package consul

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/hashicorp/consul/api"
)

var (
	// ErrRefused: Consul answered that the transaction was rolled back. Nothing changed, for certain.
	ErrRefused = errors.New("refused by consul, nothing was changed")
	// ErrConflict: a check-and-set met another version of the document. Nothing changed.
	ErrConflict = errors.New("the document has changed since it was read, nothing was changed")
	// ErrSessionGone: Consul does not know the session; it expired or was destroyed.
	ErrSessionGone = errors.New("consul does not know the session any more")
	// ErrDenied: the ACL token may not do this, or is unknown. Nothing changed. The message names the rule that is lacking.
	ErrDenied = errors.New("denied by consul's access control")
	// ErrUnreadable: a document is there and cannot be read; the message names its key.
	ErrUnreadable = errors.New("the document cannot be read")
)

// OutcomeUnknown reports whether the change that failed with err may have taken place
// all the same, or may yet: after timeouts, lost connections and server errors. It is
// false for nil, for answers that say no, and for requests that never left.
func OutcomeUnknown(err error) bool {
	if err == nil {
		return false
	}
	var f *failure
	if errors.As(err, &f) {
		return !f.certain
	}
	return true
}

// failure is every error of this package: what was tried, where, and how it ended.
type failure struct {
	address string
	op      string
	causes  []error // sentinels first
	detail  string
	certain bool // nothing was changed, and nothing will be
}

func (f *failure) Error() string {
	parts := make([]string, 0, len(f.causes)+1)
	for _, c := range f.causes {
		parts = append(parts, c.Error())
	}
	if f.detail != "" {
		parts = append(parts, f.detail)
	}
	return fmt.Sprintf("consul at %s: %s: %s", f.address, f.op, strings.Join(parts, ": "))
}

func (f *failure) Unwrap() []error { return f.causes }

// area is the part of Consul's access control that a call needs.
type area int

const (
	areaKey area = iota
	areaKeyRead
	areaSession
	areaService
	areaNone
)

// advice names the ACL rule that a denied call lacks.
func (c *Client) advice(a area) string {
	switch a {
	case areaKey:
		return fmt.Sprintf("the token needs key_prefix %q { policy = \"write\" }", c.prefix)
	case areaKeyRead:
		return fmt.Sprintf("the token needs key_prefix %q { policy = \"write\" }, or \"read\" for a router", c.prefix)
	case areaSession:
		return `the token needs session_prefix "" { policy = "write" }`
	case areaService:
		return fmt.Sprintf("the token needs service %q { policy = \"write\" }", c.cluster)
	}
	return "check the token"
}

// fail says how a request ended that got no usable answer.
func (c *Client) fail(op string, a area, err error) error {
	if err == nil {
		return nil
	}
	f := &failure{address: c.address, op: op}
	var status *statusError
	var dial *net.OpError
	var whole *url.Error
	if errors.As(err, &whole) {
		err = whole.Err // its text repeats the address
	}
	switch {
	case errors.As(err, &status):
		f.certain = status.nothingChanged()
		if status.code == http.StatusForbidden {
			f.causes = append(f.causes, ErrDenied)
			f.detail = c.advice(a)
		}
		f.causes = append(f.causes, status)
	case errors.As(err, &dial) && dial.Op == "dial" && !errors.Is(err, context.DeadlineExceeded):
		f.certain = true // no connection, so not a byte was sent
		f.causes = append(f.causes, err)
		f.detail = "check that it runs, and that the address is right"
	default:
		f.causes = append(f.causes, err)
	}
	return f
}

// refusal says what a transaction that was rolled back answered.
func (c *Client) refusal(op string, errs api.TxnErrors) error {
	f := &failure{address: c.address, op: op, certain: true}
	var what []string
	denied, gone := false, false
	for _, e := range errs {
		what = append(what, e.What)
		// Consul tells the cause in words only: acl.errPermissionDenied and kvsLockTxn.
		denied = denied || strings.Contains(e.What, "Permission denied")
		gone = gone || strings.HasPrefix(e.What, "invalid session")
	}
	switch {
	case len(errs) == 0:
		f.certain = false
		f.causes = []error{errors.New("a conflict without a reason, which consul does not send; is something between here and consul?")}
		return f
	case denied:
		f.causes = []error{ErrDenied}
		what = append(what, c.advice(areaKey))
	case gone:
		f.causes = []error{ErrRefused, ErrSessionGone}
	default:
		f.causes = []error{ErrRefused}
	}
	f.detail = strings.Join(what, "; ")
	return f
}

// misuse is an error of the caller's, found before anything was sent.
func (c *Client) misuse(op, format string, args ...any) error {
	return &failure{address: c.address, op: op, certain: true, causes: []error{fmt.Errorf(format, args...)}}
}

// statusError is an HTTP answer that is none of those that the KV and session APIs give in normal work.
type statusError struct {
	code int
	body string
}

func (e *statusError) Error() string {
	body := strings.TrimSpace(e.body)
	if body == "" {
		body = http.StatusText(e.code)
	}
	return fmt.Sprintf("answered %d: %s", e.code, body)
}

// nothingChanged holds for the codes that Consul sends before it hands a request to Raft. 429 and
// 5xx may come from either side of that.
func (e *statusError) nothingChanged() bool {
	switch e.code {
	case http.StatusBadRequest, http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusRequestEntityTooLarge:
		return true
	}
	return false
}

// isUnknownService recognises the agent's 404 to a deregistration.
func isUnknownService(err error) bool {
	var s *statusError
	return errors.As(err, &s) && s.code == http.StatusNotFound && strings.Contains(s.body, "Unknown service ID")
}
