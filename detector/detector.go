package detector

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"go.uber.org/zap"

	"howdah/consul/schema"
)

// Detector takes part in the gossip of one cluster. All methods may be called at any time by any
// goroutine, until Shutdown.
type Detector struct {
	cfg  Config
	now  func() schema.Instant
	log  *zap.Logger
	logs *logs
	box  *inbox
	ring *memberlist.Keyring
	ml   *memberlist.Memberlist
	// addr is what others are told.
	addr      netip.AddrPort
	startedAt schema.Instant
	counters  counters

	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	logDone chan struct{}
	logWG   sync.WaitGroup

	changes   chan struct{}
	sendNow   chan struct{}
	metaNow   chan struct{}
	joinNow   chan struct{}
	streaming sync.Map // names of peers to which a TCP message is under way

	keyMu        sync.Mutex
	shutdownOnce sync.Once
	shutdownErr  error

	// mu guards what follows and is never held while memberlist is called.
	mu          sync.Mutex
	table       *table
	conflicts   *conflicts
	own         held // the status published last; Generation holds from the start on
	meta        meta
	encodedMeta []byte
	metaProblem string
	joiner      joiner
	promises    promises
	cancels     cancels
	foreign     map[string]bool // clusters whose gossip was logged
}

// leaveTimeout bounds each step of saying goodbye.
const leaveTimeout = 500 * time.Millisecond

// Start listens, and begins to join. That nobody else is there yet is no error.
func Start(cfg Config, now func() schema.Instant, log *zap.Logger) (*Detector, error) {
	if cfg.Timing == (Timing{}) {
		cfg.Timing = LAN()
	}
	if cfg.generation == 0 {
		cfg.generation = uint64(time.Now().UnixNano())
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	d := newDetector(cfg, now, log)
	if err := d.start(); err != nil {
		d.cancel()
		return nil, err
	}
	return d, nil
}

func newDetector(cfg Config, now func() schema.Instant, log *zap.Logger) *Detector {
	d := &Detector{
		cfg: cfg, now: now, log: log, logs: newLogs(log, now), box: newInbox(),
		startedAt: now(),
		logDone:   make(chan struct{}),
		changes:   make(chan struct{}, 1),
		sendNow:   make(chan struct{}, 1),
		metaNow:   make(chan struct{}, 1),
		joinNow:   make(chan struct{}, 1),
		table:     newTable(cfg.Name, cfg.Cluster, cfg.Timing),
		conflicts: newConflicts(cfg.Timing),
		own:       held{Generation: cfg.generation},
		meta:      cfg.meta(),
		joiner:    newJoiner(cfg.Join),
		promises:  newPromises(),
		cancels:   newCancels(),
		foreign:   map[string]bool{},
	}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	return d
}

func (d *Detector) start() (err error) {
	if d.encodedMeta, err = d.meta.encode(); err != nil {
		return err
	}
	if d.ring, err = memberlist.NewKeyring(d.cfg.Keys, d.cfg.Keys[0]); err != nil {
		return fmt.Errorf("%w: %w", ErrKey, err)
	}
	at, err := d.cfg.bindAddress(d.ctx)
	if err != nil {
		return err
	}
	t, err := listen(d.ctx, at)
	if err != nil {
		return err
	}
	bound := netip.AddrPortFrom(at.Addr(), uint16(t.GetAutoBindPort()))
	conf, err := d.memberlistConfig(t, bound)
	if err != nil {
		return errors.Join(err, t.Shutdown())
	}
	d.logWG.Go(func() { d.logs.run(d.logDone) })
	if d.ml, err = memberlist.Create(conf); err != nil {
		close(d.logDone)
		d.logWG.Wait()
		return errors.Join(fmt.Errorf("gossip: %w", err), t.Shutdown())
	}
	ip, port, err := t.FinalAdvertiseAddr(conf.AdvertiseAddr, conf.AdvertisePort)
	if err != nil {
		return errors.Join(fmt.Errorf("gossip: %w", err), d.Shutdown(context.Background()))
	}
	a, _ := netip.AddrFromSlice(ip)
	d.addr = netip.AddrPortFrom(a.Unmap(), uint16(port))
	d.wg.Go(d.run)
	d.wg.Go(d.sendLoop)
	d.wg.Go(d.metaLoop)
	d.wg.Go(d.joinLoop)
	d.log.Info("gossip started", zap.Stringer("listen", bound), zap.Stringer("advertise", d.addr), zap.Strings("join", d.cfg.Join))
	return nil
}

func (d *Detector) memberlistConfig(t *transport, bound netip.AddrPort) (*memberlist.Config, error) {
	tm := d.cfg.Timing
	c := memberlist.DefaultLANConfig()
	c.Name = d.cfg.Name
	c.Label = labelPrefix + d.cfg.Cluster
	c.Transport = t
	if d.cfg.transport != nil {
		c.Transport = d.cfg.transport(t)
	}
	c.BindAddr, c.BindPort = bound.Addr().String(), int(bound.Port())
	advertise, err := d.cfg.advertise(d.ctx, bound)
	if err != nil {
		return nil, err
	}
	if advertise.IsValid() {
		c.AdvertiseAddr, c.AdvertisePort = advertise.Addr().String(), int(advertise.Port())
	}
	c.ProbeInterval, c.ProbeTimeout, c.IndirectChecks = tm.ProbeInterval, tm.ProbeTimeout, tm.IndirectChecks
	c.SuspicionMult, c.SuspicionMaxTimeoutMult = tm.SuspicionMult, tm.SuspicionMaxMult
	c.AwarenessMaxMultiplier = tm.AwarenessMax
	c.GossipInterval, c.GossipNodes, c.RetransmitMult = tm.GossipInterval, tm.GossipNodes, tm.RetransmitMult
	c.GossipToTheDeadTime = tm.GossipToTheDead
	c.PushPullInterval, c.TCPTimeout = tm.PushPullInterval, tm.StreamTimeout
	c.UDPBufferSize = tm.PacketBytes
	// Compression allocates 64 kB for each packet (compress/lzw); statuses fit without it.
	c.EnableCompression = false
	// A member that was restarted on another address takes its name over as soon as it was called dead.
	c.DeadNodeReclaimTime = time.Nanosecond
	c.Keyring = d.ring
	c.DelegateProtocolMin, c.DelegateProtocolMax, c.DelegateProtocolVersion = 1, 1, 1
	g := delegate{d}
	c.Delegate, c.Events, c.Conflict, c.Alive = g, g, g, g
	c.Logger = d.logs.logger()
	return c, nil
}

// Addr returns the host:port that others are told, an IP address always.
func (d *Detector) Addr() string { return d.addr.String() }

// Peers returns all other processes that are known, sorted by name. Of one whose status was not heard
// yet the metadata stands in: state unknown, LSNs zero.
func (d *Detector) Peers() []schema.Peer {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.table.snapshot()
}

// LivenessSince returns a peer's liveness and since when this process has held it; LivenessUnknown and
// Never of one that is not known.
func (d *Detector) LivenessSince(name string) (schema.Liveness, schema.Instant) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := d.table.peers[name]; p != nil {
		return p.shown, p.shownAt
	}
	return schema.LivenessUnknown, schema.Never
}

// Changes yields after every change of what Peers or Conflicts return; several changes may come as one. It
// is never closed, and is for one reader.
func (d *Detector) Changes() <-chan struct{} { return d.changes }

// Conflicts returns the names, this process's own among them, under which two processes live at the same
// time. Neither of them can be trusted with anything until one is stopped.
func (d *Detector) Conflicts() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.conflicts.names(d.now())
}

// UseKeys replaces the gossip keys; the first encrypts. To change the key of a cluster without a gap:
// give every process [old, new], then every process [new, old], then every process [new].
func (d *Detector) UseKeys(keys [][]byte) error {
	d.keyMu.Lock()
	defer d.keyMu.Unlock()
	if err := rotate(d.ring, keys); err != nil {
		return err
	}
	d.log.Info("gossip keys replaced", zap.Int("keys", len(keys)))
	return nil
}

// Shutdown says goodbye, so that the others need not find out, and stops. It returns when every
// goroutine has ended; ctx bounds the goodbye only.
func (d *Detector) Shutdown(ctx context.Context) error {
	d.shutdownOnce.Do(func() {
		d.mu.Lock()
		d.meta.Leaving = true
		if b, err := d.meta.encode(); err == nil {
			d.encodedMeta = b
		}
		// Under the lock, so that spawn starts nothing after it.
		d.cancel()
		d.mu.Unlock()
		// From here on only this goroutine changes the metadata (memberlist's UpdateNode is not for two).
		d.wg.Wait()
		err := d.goodbye(ctx)
		if stop := d.ml.Shutdown(); stop != nil {
			err = errors.Join(err, fmt.Errorf("gossip: stop: %w", stop))
		}
		close(d.logDone)
		d.logWG.Wait()
		d.shutdownErr = err
	})
	return d.shutdownErr
}

// goodbye tells by metadata that the death that follows is a departure: memberlist knows that but does
// not say it to its delegates.
func (d *Detector) goodbye(ctx context.Context) error {
	patience := func() time.Duration {
		left := leaveTimeout
		if deadline, ok := ctx.Deadline(); ok {
			left = min(left, time.Until(deadline))
		}
		return max(left, time.Millisecond)
	}
	// Not to have been heard is no failure: the others find out by themselves.
	if err := d.ml.UpdateNode(patience()); err != nil {
		d.log.Debug("goodbye was not confirmed", zap.Error(err))
	}
	if err := d.ml.Leave(patience()); err != nil {
		d.log.Debug("leaving was not confirmed", zap.Error(err))
	}
	return ctx.Err()
}

// run owns the table of peers.
func (d *Detector) run() {
	tick := time.NewTicker(d.table.tickInterval())
	defer tick.Stop()
	for {
		ticked := false
		select {
		case <-d.ctx.Done():
			return
		case <-d.box.signal:
		case <-tick.C:
			ticked = true
		}
		d.process(d.box.take(), ticked)
	}
}

// poke makes the reader of c go round once more.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
