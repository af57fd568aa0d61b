package cmd

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"howdah/cmd/options"
	"howdah/consul/schema"
	"howdah/sidecar/api"
)

const (
	// orderTimeout is how long it may take to record a wish: its own bound and a little.
	orderTimeout = 12 * time.Second
	// maxReply bounds what is read of an answer.
	maxReply = 8 << 20
)

// memberAPI talks to the HTTP APIs of members.
type memberAPI struct {
	client *http.Client
	scheme string // for addresses that name none
	token  options.Secret
}

func newMemberAPI(caFile string, token options.Secret) (*memberAPI, error) {
	m := &memberAPI{client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, scheme: "http://", token: token}
	if caFile == "" {
		return m, nil
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("api-ca-file: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("api-ca-file: %s holds no PEM certificate", caFile)
	}
	m.scheme = "https://"
	m.client.Transport = &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	return m, nil
}

func (m *memberAPI) status(ctx context.Context, address string) (*schema.ClusterStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var s schema.ClusterStatus
	if err := m.call(ctx, http.MethodGet, address, "/status", nil, &s); err != nil {
		return nil, err
	}
	if s.Member == "" || s.Cluster == "" {
		return nil, errors.New("what answers there is not howdah's API")
	}
	return &s, nil
}

func (m *memberAPI) events(ctx context.Context, address string) ([]schema.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var events []schema.Event
	err := m.call(ctx, http.MethodGet, address, "/events", nil, &events)
	return events, err
}

func (m *memberAPI) why(ctx context.Context, address string) (*schema.Account, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var a schema.Account
	if err := m.call(ctx, http.MethodGet, address, "/why", nil, &a); err != nil {
		return nil, err
	}
	if a.Member == "" {
		return nil, errors.New("what answers there is not howdah's API")
	}
	return &a, nil
}

func (m *memberAPI) parameters(ctx context.Context, address string) ([]schema.Parameter, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var all []schema.Parameter
	err := m.call(ctx, http.MethodGet, address, "/parameters", nil, &all)
	return all, err
}

func (m *memberAPI) switchover(ctx context.Context, address, to string) (api.SwitchoverReply, error) {
	ctx, cancel := context.WithTimeout(ctx, orderTimeout)
	defer cancel()
	var reply api.SwitchoverReply
	body, err := json.Marshal(api.SwitchoverRequest{To: to})
	if err != nil {
		return reply, err
	}
	err = m.call(ctx, http.MethodPost, address, "/switchover", body, &reply)
	return reply, err
}

func (m *memberAPI) order(ctx context.Context, address string, kind schema.OrderKind) (api.OrderReply, error) {
	ctx, cancel := context.WithTimeout(ctx, orderTimeout)
	defer cancel()
	var reply api.OrderReply
	err := m.call(ctx, http.MethodPost, address, "/"+string(kind), nil, &reply)
	return reply, err
}

func (m *memberAPI) reload(ctx context.Context, address string) (schema.ReloadReport, error) {
	ctx, cancel := context.WithTimeout(ctx, orderTimeout)
	defer cancel()
	var report schema.ReloadReport
	err := m.call(ctx, http.MethodPost, address, "/reload", nil, &report)
	return report, err
}

func (m *memberAPI) reinitPlan(ctx context.Context, address string) (schema.ReinitPlan, error) {
	ctx, cancel := context.WithTimeout(ctx, orderTimeout)
	defer cancel()
	var plan schema.ReinitPlan
	err := m.call(ctx, http.MethodGet, address, "/reinit", nil, &plan)
	return plan, err
}

// refused is an answer that says no: nothing was recorded.
type refused struct {
	code int
	why  string
}

func (r refused) Error() string { return r.why }

func (m *memberAPI) call(ctx context.Context, method, address, path string, body []byte, into any) error {
	url := address
	if !strings.Contains(url, "://") {
		url = m.scheme + url
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(url, "/")+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if method == http.MethodPost && m.token != "" {
		req.Header.Set("Authorization", "Bearer "+m.token.Reveal())
	}
	resp, err := m.client.Do(req)
	if err != nil {
		return plainly(ctx, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if err != nil {
		return plainly(ctx, err)
	}
	if resp.StatusCode >= 300 {
		var said struct{ Error string }
		if json.Unmarshal(data, &said) != nil || said.Error == "" {
			said.Error = "it answered " + resp.Status
		}
		return refused{code: resp.StatusCode, why: said.Error}
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("what answers there is not howdah's API: %w", err)
	}
	return nil
}

// plainly shortens what net/http says to what a person needs.
func plainly(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return errors.New("no answer in time")
	}
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(inner) {
		err = inner
	}
	return err
}
