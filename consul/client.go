package consul

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
	"go.uber.org/zap"

	"howdah/consul/schema"
)

const (
	// callTimeout bounds a call whose context has no deadline of its own.
	callTimeout = 10 * time.Second
	// defaultWatchWait bounds one blocking query, and with it the age of what a watch holds.
	defaultWatchWait = 10 * time.Second
	// maxErrorBody is how much of an error page is kept for a message.
	maxErrorBody = 1 << 10
)

// Options say where Consul is, who asks and about which cluster.
type Options struct {
	// Address is host:port, http://, https:// or unix://; empty means Consul's own default (127.0.0.1:8500).
	Address string
	// Token is the ACL token; TokenFile a file that holds it. At most one may be set.
	Token, TokenFile string
	// CAFile, CertFile and KeyFile are PEM files for https.
	CAFile, CertFile, KeyFile string
	// InsecureSkipVerify accepts any server certificate.
	InsecureSkipVerify bool
	// Namespace and Partition are for Consul Enterprise, which alone knows them.
	Namespace, Partition string
	// Datacenter is the one whose servers keep the lock; empty means the agent's.
	Datacenter string
	// Cluster names the keys (howdah/<cluster>/) and the service.
	Cluster string
	// WatchWait bounds one blocking query of WatchState; zero means 10 s.
	WatchWait time.Duration
}

// Client talks to one Consul about one cluster. It is safe for concurrent use.
type Client struct {
	api       *api.Client
	address   string // for messages
	cluster   string
	prefix    string // howdah/<cluster>/
	namespace string
	partition string
	anonymous bool // no token: Consul does not say what it leaves out
	watchWait time.Duration
	now       func() schema.Instant
	log       *zap.Logger
}

// A cluster's name is a label in DNS (primary.<cluster>.service.consul) and a part of keys.
var clusterName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// memberName keeps a member's name within one key.
var memberName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)

// New checks the options and reads the files they name. It asks nothing of Consul: see CheckAccess.
func New(o Options, now func() schema.Instant, log *zap.Logger) (*Client, error) {
	if !clusterName.MatchString(o.Cluster) {
		return nil, fmt.Errorf("cluster: %q is not allowed; use 1 to 63 of a-z, 0-9 and -, with no - at either end", o.Cluster)
	}
	cfg := api.DefaultConfig()
	if err := applyAuth(cfg, o); err != nil {
		return nil, err
	}
	if err := applyAddress(cfg, o); err != nil {
		return nil, err
	}
	cfg.Datacenter = firstOf(o.Datacenter, cfg.Datacenter)
	cfg.Namespace = firstOf(o.Namespace, cfg.Namespace)
	cfg.Partition = firstOf(o.Partition, cfg.Partition)
	httpClient, err := api.NewHttpClient(cfg.Transport, cfg.TLSConfig)
	if err != nil {
		return nil, fmt.Errorf("TLS to consul at %s: %w", cfg.Address, err)
	}
	httpClient.Transport = strictTransport{httpClient.Transport}
	httpClient.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	cfg.HttpClient = httpClient
	shown := firstOf(o.Address, cfg.Address)
	client, err := api.NewClient(cfg)
	if err != nil {
		return nil, fmt.Errorf("consul address %q: %w", shown, err)
	}
	wait := o.WatchWait
	if wait <= 0 {
		wait = defaultWatchWait
	}
	return &Client{
		api: client, address: shown, cluster: o.Cluster, prefix: "howdah/" + o.Cluster + "/",
		namespace: cfg.Namespace, partition: cfg.Partition, anonymous: cfg.Token == "" && cfg.TokenFile == "",
		watchWait: wait, now: now, log: log.With(zap.String("consul", shown)),
	}, nil
}

// applyAuth reads the token. An empty token file is an error: without it the anonymous token would be used.
func applyAuth(cfg *api.Config, o Options) error {
	switch {
	case o.Token != "" && o.TokenFile != "":
		return errors.New("consul token and consul token file are both set; set one of them")
	case o.Token != "":
		cfg.Token, cfg.TokenFile = o.Token, ""
	case o.TokenFile != "":
		b, err := os.ReadFile(o.TokenFile)
		if err != nil {
			return fmt.Errorf("consul token file: %w", err)
		}
		cfg.Token, cfg.TokenFile = strings.TrimSpace(string(b)), ""
		if cfg.Token == "" {
			return fmt.Errorf("consul token file %s is empty", o.TokenFile)
		}
	}
	return nil
}

func applyAddress(cfg *api.Config, o Options) error {
	cfg.Address = firstOf(o.Address, cfg.Address)
	cfg.TLSConfig.CAFile = firstOf(o.CAFile, cfg.TLSConfig.CAFile)
	cfg.TLSConfig.CertFile = firstOf(o.CertFile, cfg.TLSConfig.CertFile)
	cfg.TLSConfig.KeyFile = firstOf(o.KeyFile, cfg.TLSConfig.KeyFile)
	cfg.TLSConfig.InsecureSkipVerify = o.InsecureSkipVerify || cfg.TLSConfig.InsecureSkipVerify
	scheme, rest, found := strings.Cut(cfg.Address, "://")
	if !found {
		scheme = cfg.Scheme
	}
	switch scheme {
	case "https":
	case "unix":
		// consul/api would replace the HTTP client for this scheme, and with it strictTransport.
		cfg.Address, cfg.Scheme = "localhost", "http"
		cfg.Transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", rest)
		}
	case "http":
		if o.CAFile != "" || o.CertFile != "" || o.KeyFile != "" {
			return fmt.Errorf("consul address %q is plain http, but TLS files are set; write https://", firstOf(o.Address, cfg.Address))
		}
	default:
		return fmt.Errorf("consul address %q: %q is not allowed; use host:port, http://, https:// or unix://", o.Address, scheme)
	}
	return nil
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// strictTransport turns every answer outside Consul's normal ones into a *statusError, so that its
// code survives consul/api's own errors, which keep either the code or the text.
type strictTransport struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (t strictTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	switch {
	case resp.StatusCode < 300:
		return resp, nil
	case resp.StatusCode == http.StatusConflict && strings.HasSuffix(r.URL.Path, "/v1/txn"):
		return resp, nil
	case resp.StatusCode == http.StatusNotFound && strings.Contains(r.URL.Path, "/v1/session/renew/"):
		return resp, nil
	case resp.StatusCode == http.StatusNotFound && resp.Header.Get("X-Consul-Index") != "":
		return resp, nil
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	return nil, &statusError{code: resp.StatusCode, body: string(body)}
}

// Address returns the address as it was configured.
func (c *Client) Address() string { return c.address }

// bounded gives every call a deadline, also where the caller set none.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, has := ctx.Deadline(); has {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, callTimeout)
}

// read are the options of a consistent read: one that the leader of Consul has confirmed with a quorum.
func (c *Client) read(ctx context.Context) *api.QueryOptions {
	return (&api.QueryOptions{RequireConsistent: true}).WithContext(ctx)
}

func (c *Client) write(ctx context.Context) *api.WriteOptions {
	return (&api.WriteOptions{}).WithContext(ctx)
}

func (c *Client) key(name string) string { return c.prefix + name }

// CheckAccess asks Consul once for what start-up needs: that it answers, has a leader, and lets the
// token read the cluster's keys, and write them where write is set (routers only read). It changes nothing.
func (c *Client) CheckAccess(ctx context.Context, write bool) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	leader, err := c.api.Status().LeaderWithQueryOptions((&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return c.fail("first contact", areaNone, err)
	}
	if leader == "" {
		return c.fail("first contact", areaNone, errors.New("it answers, but its servers have no leader"))
	}
	if _, _, err := c.api.KV().Get(c.key("leader"), c.read(ctx)); err != nil {
		return c.fail("first read", areaKeyRead, err)
	}
	if !write {
		return nil
	}
	// check-not-exists needs the right to write (kvsPreApply), and writes nothing.
	probe := api.TxnOps{{KV: &api.KVTxnOp{Verb: api.KVCheckNotExists, Key: c.key("leader"), Namespace: c.namespace, Partition: c.partition}}}
	ok, resp, _, err := c.api.Txn().Txn(probe, c.read(ctx))
	if err != nil {
		return c.fail("first check of the right to write", areaKey, err)
	}
	if !ok {
		if err := c.refusal("first check of the right to write", resp.Errors); errors.Is(err, ErrDenied) {
			return err
		}
	}
	return nil
}
