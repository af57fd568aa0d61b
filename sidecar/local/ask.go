package local

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"howdah/consul/schema"
)

const (
	// askTimeout bounds one question to a member; a frozen one does not answer.
	askTimeout = time.Second
	// maxAnswer bounds what is read of an answer.
	maxAnswer = 8 << 20
	// lookEvery is how often a condition is looked at.
	lookEvery = 50 * time.Millisecond
)

// asker asks HTTP APIs.
type asker struct{ client *http.Client }

func newAsker() *asker {
	return &asker{client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
}

func (a *asker) get(ctx context.Context, address, path string, into any) error {
	return a.call(ctx, askTimeout, http.MethodGet, address+path, "", nil, into)
}

func (a *asker) call(ctx context.Context, timeout time.Duration, method, url, token string, body []byte, into any) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s answered %s: %s", url, resp.Status, bytes.TrimSpace(data))
	}
	return json.Unmarshal(data, into)
}

// Answer is what one member said when asked for its status, or why there was no answer.
type Answer struct {
	Member *Member
	Status schema.ClusterStatus
	Err    error
}

// Look is what all members said at about one moment, in the order of the members.
type Look []Answer

// Look asks all members at once.
func (c *Cluster) Look(ctx context.Context) Look {
	l := make(Look, len(c.members))
	var wg sync.WaitGroup
	for i, m := range c.members {
		wg.Go(func() {
			s, err := m.Status(ctx)
			l[i] = Answer{Member: m, Status: s, Err: err}
		})
	}
	wg.Wait()
	return l
}

// Primary returns the member that says that it serves with the lock, in the newest epoch; nil if none does.
func (l Look) Primary() *Member {
	var primary *Member
	var epoch schema.Epoch
	for _, a := range l {
		s := a.Status
		if a.Err == nil && s.HoldsLock && s.Self.Role == schema.RolePrimary && s.Self.State == schema.StateRunning && s.Self.Epoch > epoch {
			primary, epoch = a.Member, s.Self.Epoch
		}
	}
	return primary
}

// Of returns the answer of one member.
func (l Look) Of(m *Member) Answer {
	for _, a := range l {
		if a.Member == m {
			return a
		}
	}
	return Answer{Member: m, Err: errors.New("not asked")}
}

// Healthy reports whether one member serves and all others stream from it in its epoch and timeline.
func (l Look) Healthy() bool {
	primary := l.Primary()
	if primary == nil {
		return false
	}
	p := l.Of(primary).Status.Self
	for _, a := range l {
		if a.Member == primary {
			continue
		}
		s := a.Status.Self
		if a.Err != nil || s.State != schema.StateStreaming || s.Upstream != primary.Name || s.Epoch != p.Epoch || s.Timeline != p.Timeline {
			return false
		}
	}
	return true
}

// Epoch returns the newest epoch that anybody named.
func (l Look) Epoch() schema.Epoch {
	var e schema.Epoch
	for _, a := range l {
		e = max(e, a.Status.Self.Epoch)
	}
	return e
}

// String says how each member is, one line for each.
func (l Look) String() string {
	var lines []string
	for _, a := range l {
		s := a.Status.Self
		line := fmt.Sprintf("%s: %s %s, epoch %d, timeline %d, LSN %s, lock %t, upstream %q, %s",
			a.Member.Name, s.Role, s.State, s.Epoch, s.Timeline, s.LSN, a.Status.HoldsLock, s.Upstream, s.Reason)
		if a.Err != nil {
			line = fmt.Sprintf("%s: no answer: %v", a.Member.Name, a.Err)
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

// Await asks all members again and again until ok holds, and returns the answers that made it hold. When ctx ends
// the error says what was waited for, how the members are and which processes had trouble.
func (c *Cluster) Await(ctx context.Context, what string, ok func(Look) bool) (Look, error) {
	var last Look
	err := Poll(ctx, lookEvery, func() bool {
		l := c.Look(ctx)
		if ctx.Err() == nil {
			last = l
		}
		return ok(l)
	})
	if err != nil {
		return last, fmt.Errorf("waiting for %s: %w\n%s%s", what, err, last, c.troubles())
	}
	return last, nil
}

// Events returns what the members and the router have recorded, in the order of time. Whoever does not answer
// is left out: the error names it, and the rest is good.
func (c *Cluster) Events(ctx context.Context) ([]schema.Event, error) {
	var all []schema.Event
	var errs []error
	for _, m := range c.members {
		e, err := m.Events(ctx)
		all, errs = append(all, e...), append(errs, err)
	}
	e, err := c.router.Events(ctx)
	all, errs = append(all, e...), append(errs, err)
	slices.SortStableFunc(all, func(a, b schema.Event) int { return cmp.Compare(a.At, b.At) })
	return all, errors.Join(errs...)
}

// Switchover asks the primary's API to hand over; to may be empty. It returns once the wish is recorded.
func (c *Cluster) Switchover(ctx context.Context, primary *Member, to string) error {
	token, err := c.Secret("api.token")
	if err != nil {
		return err
	}
	body, err := json.Marshal(map[string]string{"to": to})
	if err != nil {
		return err
	}
	var reply any
	return c.asker.call(ctx, 15*time.Second, http.MethodPost, primary.Addresses.API+"/switchover", token, body, &reply)
}
