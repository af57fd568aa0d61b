package launch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"howdah/consul/boottime"
	"howdah/consul/schema"
)

// Client drives a Server over its unix socket. Every method respects ctx and retries nothing; an
// error that is none of the sentinels (and not ErrUnreachable) leaves the outcome unknown. Safe
// for use by several goroutines.
type Client struct {
	http *http.Client
	now  func() schema.Instant
}

// callTimeout bounds every call that is answered at once, also where ctx has no deadline.
const callTimeout = 5 * time.Second

// NewClient returns a client of the launcher that listens on socket. It does not connect yet.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", socket)
	}
	return &Client{
		http: &http.Client{Transport: &http.Transport{
			DialContext:        dial,
			DisableCompression: true,
			MaxIdleConns:       4, MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute,
		}},
		now: boottime.Now,
	}
}

// Close drops the idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status returns what the launcher knows at once. ErrClock if the launcher's clock is not ours: then no
// deadline may be sent, nor any Instant of the status be used.
func (c *Client) Status(ctx context.Context) (Status, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return c.status(ctx, "/status")
}

// WaitStatus returns as soon as Status.Seq > after, or ctx's error. A launcher that was started
// anew on the same boot has a higher Seq, so it answers at once.
func (c *Client) WaitStatus(ctx context.Context, after uint64) (Status, error) {
	for {
		q := url.Values{"after": {strconv.FormatUint(after, 10)}}
		// The server answers after pollTime at the latest; a little later we give it up.
		tctx, cancel := context.WithTimeout(ctx, pollTime+callTimeout)
		s, err := c.status(tctx, "/status?"+q.Encode())
		cancel()
		if err != nil || s.Seq > after {
			return s, err
		}
		if err := ctx.Err(); err != nil {
			return Status{}, err
		}
	}
}

func (c *Client) status(ctx context.Context, path string) (Status, error) {
	var s Status
	asked := c.now()
	if err := c.call(ctx, http.MethodGet, path, nil, &s); err != nil {
		return Status{}, err
	}
	if answered := c.now(); s.Now < asked || s.Now > answered {
		return s, fmt.Errorf("%w: the launcher's CLOCK_BOOTTIME %d is not between ours before and after the call (%d and %d); run both on one machine and in one time namespace", ErrClock, s.Now, asked, answered)
	}
	return s, nil
}

// Start forks a postmaster and returns once it is forked, not once it is ready.
func (c *Client) Start(ctx context.Context, r StartRequest) error {
	r.ClientNow = c.now()
	return c.post(ctx, "/start", r, nil)
}

// Stop signals the postmaster and returns; the end is seen in Status. A harder mode may follow a
// softer one; a softer one changes nothing. Nil if nothing runs.
func (c *Client) Stop(ctx context.Context, r StopRequest) error {
	return c.post(ctx, "/stop", r, nil)
}

// Reload makes the postmaster read its configuration again. ErrNotRunning if there is none.
func (c *Client) Reload(ctx context.Context) error { return c.post(ctx, "/reload", nil, nil) }

// Arm sets a lease: before a promotion, and for every extension. A deadline earlier than
// the one in force in the same epoch changes nothing and is no error. ErrOlderEpoch,
// ErrDeadlinePast, ErrNotRunning, ErrClock.
func (c *Client) Arm(ctx context.Context, l Lease) error {
	return c.post(ctx, "/arm", armRequest{Lease: l, ClientNow: c.now()}, nil)
}

// Run starts a program and returns its job's ID. The job goes on without the caller; Status.Job shows
// it while it is the newest long job, Job always. ErrBusy, ErrInvalid, ErrAlreadyRunning.
func (c *Client) Run(ctx context.Context, r RunRequest) (string, error) {
	var j Job
	err := c.post(ctx, "/run", r, &j)
	return j.ID, err
}

// RunWait runs a program to its end. If ctx ends first the program is killed. A program that fails
// is not an error here: see JobResult.ExitCode.
func (c *Client) RunWait(ctx context.Context, r RunRequest) (JobResult, error) {
	var j Job
	if err := c.call(ctx, http.MethodPost, "/run?wait=true", r, &j); err != nil {
		return JobResult{}, err
	}
	return JobResult{ExitCode: j.ExitCode, Output: j.Output}, nil
}

// Job returns a job by ID, running or ended, with up to 64 KiB of output. The last 16 are kept.
func (c *Client) Job(ctx context.Context, id string) (Job, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var j Job
	err := c.call(ctx, http.MethodGet, "/jobs/"+url.PathEscape(id), nil, &j)
	return j, err
}

// CancelJob kills a job with all its processes and returns; nil if it has ended. ErrNoJob.
func (c *Client) CancelJob(ctx context.Context, id string) error {
	return c.post(ctx, "/jobs/"+url.PathEscape(id)+"/cancel", nil, nil)
}

func (c *Client) post(ctx context.Context, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return c.call(ctx, http.MethodPost, path, in, out)
}

// call does one request. Its errors never hold the request's body, which may hold secrets.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("launcher: %s: %w", path, err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://launcher"+path, body)
	if err != nil {
		return fmt.Errorf("launcher: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "dial" {
			return fmt.Errorf("%w: %w", ErrUnreachable, op)
		}
		return fmt.Errorf("launcher: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("launcher: %s %s: reading the answer: %w", method, path, err)
	}
	if resp.StatusCode != http.StatusOK {
		var w wireError
		if json.Unmarshal(b, &w) != nil || w.Message == "" {
			return fmt.Errorf("launcher: %s %s: unexpected answer %s", method, path, resp.Status)
		}
		return w.err()
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("launcher: %s %s: answer is not understood: %w", method, path, err)
	}
	return nil
}
