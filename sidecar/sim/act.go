package sim

import (
	"strings"
	"time"

	"howdah/consul/schema"
	"howdah/sidecar/decide"
)

// act carries out an action as the sidecar's act.go does, over the models.
func (n *node) act(a decide.Action) {
	out := decide.Outcome{Action: a, StartedAt: n.clock.now()}
	ended := false
	gen := n.gen
	finish := func(r decide.Certainty) {
		if ended || n.gen != gen {
			return
		}
		ended = true
		out.Result, out.EndedAt = r, n.clock.now()-1
		if r != decide.OK {
			out.Error = string(r)
			out.Session = ""
		}
		n.obs.Finish(out)
		n.wake()
	}
	if a.Timeout > 0 { // by the clock of the host
		n.w.after(n.clock.local(a.Timeout), func() { n.sidecar(func() { finish(decide.Unclear) }) })
	}
	n.w.ledger.destroys(n, a)
	n.misact(a)
	switch a.Kind.Slot() {
	case decide.SlotLock, decide.SlotSession, decide.SlotDocs:
		n.ask(a, &out, finish)
	case decide.SlotPostgres, decide.SlotLook:
		n.handle(a, &out, finish)
	case decide.SlotFence:
		n.w.after(n.w.between(0, time.Millisecond), func() {
			n.host(func() {
				if n.silent {
					return
				}
				if n.pg.running() {
					n.pg.die(decide.ProcessStopped)
				}
				n.sidecar(func() { finish(decide.OK) })
			})
		})
	case decide.SlotArm:
		n.host(func() {
			if n.silent {
				return
			}
			if n.pg.arm(a.Epoch, a.Deadline) {
				finish(decide.OK)
			} else {
				finish(decide.Refused)
			}
		})
	case decide.SlotPromises:
		n.collect(a, &out, finish)
	}
}

// ask sends a request to Consul. The request, the reply, or both may be lost or late: what was applied
// late was applied all the same.
func (n *node) ask(a decide.Action, out *decide.Outcome, finish func(decide.Certainty)) {
	asked := n.clock.now()
	c := n.w.consul
	n.w.send(n.name, consulName, func() {
		if !c.up {
			return
		}
		view, session, res := n.w.apply(a)
		n.w.send(consulName, n.name, func() {
			n.sidecar(func() {
				if view.Known {
					view.AskedAt = asked
					if n.w.o.Mutate == DeadlineFromReply {
						view.AskedAt = n.clock.now()
					}
					out.View = view
				}
				out.Session = session
				if res == refused {
					out.View = schema.LockView{}
					finish(decide.Refused)
					return
				}
				finish(decide.OK)
			})
		})
	})
}

// apply is what Consul does with a request.
func (w *World) apply(a decide.Action) (schema.LockView, string, answer) {
	c := w.consul
	switch a.Kind {
	case decide.ReadLeader:
		return c.read(), "", done
	case decide.Seize:
		if w.o.Mutate == TakeOverUnconditionally && c.leader.Exists {
			a.At = c.read()
		}
		if s := c.sessions[c.leader.Session]; w.o.Mutate == TakeOverByDestroying && s != nil && c.leader.Leader.Epoch < a.Leader.Epoch {
			c.expire(s, s.gen)
			a.At = c.read()
		}
		v, r := c.seize(a.At, a.Leader)
		if r == done && strings.HasPrefix(a.Why, "forced by") {
			w.ledger.forced = a.Leader.Epoch
		}
		return v, "", r
	case decide.Renew:
		v, r := c.renew(a.At, a.Leader)
		return v, "", r
	case decide.Release:
		v, r := c.release(a.At, a.Leader)
		return v, "", r
	case decide.OpenSession:
		return schema.LockView{}, c.open(10 * time.Second), done
	case decide.RenewSession:
		s := c.sessions[a.Session]
		if s == nil {
			return schema.LockView{}, "", refused
		}
		c.touch(s)
		return schema.LockView{}, a.Session, done
	case decide.PutInitialize:
		return schema.LockView{}, "", putDoc(c, &c.initialize, a.Initialize, a.Index)
	case decide.PutHistory:
		h := c.history.Value
		h.Reigns = append(h.Reigns[:len(h.Reigns):len(h.Reigns)], a.Reign)
		return schema.LockView{}, "", putDoc(c, &c.history, h, a.Index)
	case decide.DropRequest:
		if c.request.Index != a.Index {
			return schema.LockView{}, "", refused
		}
		c.request = schema.Doc[schema.Request]{}
		c.change()
		return schema.LockView{}, "", done
	}
	panic("no such request: " + a.String())
}

// collect asks every member for its promise.
func (n *node) collect(a decide.Action, out *decide.Outcome, finish func(decide.Certainty)) {
	missing := len(a.Members)
	if missing == 0 {
		finish(decide.OK)
	}
	for _, name := range a.Members {
		other := n.w.node(name)
		req := schema.PromiseRequest{From: n.name, Epoch: a.Epoch, Lease: a.Lease, Mark: a.Mark(name), Report: a.Kind == decide.AskReports}
		n.w.send(n.name, name, func() {
			other.sidecar(func() {
				other.obs.Now = other.clock.now()
				var r schema.PromiseReply
				r, other.memory = decide.Promise(other.obs, other.memory, req)
				if n.w.o.Mutate == PromiseAnything && !req.Report {
					r.Given, r.Why = true, ""
				}
				n.w.send(name, n.name, func() {
					n.sidecar(func() {
						out.Promises = append(out.Promises, r)
						if missing--; missing == 0 {
							finish(decide.OK)
						}
					})
				})
			})
		})
	}
}

// handle carries out an action on the data directory or the postmaster.
func (n *node) handle(a decide.Action, out *decide.Outcome, finish func(decide.Certainty)) {
	p := n.pg
	report := func(ok bool) {
		n.sidecar(func() {
			if ok {
				finish(decide.OK)
			} else {
				finish(decide.Refused)
			}
		})
	}
	if n.silent {
		n.w.after(n.w.between(500*time.Millisecond, 2*time.Second), func() { n.sidecar(func() { finish(decide.Unclear) }) })
		return
	}
	up := n.w.node(a.From.Member)
	n.configures(a.Kind)
	switch a.Kind {
	case decide.Reconfigure:
		n.reconfigure(a, report)
	case decide.Initdb:
		n.w.after(n.w.between(300*time.Millisecond, 2*time.Second), func() {
			p.written(func() {
				n.w.ledger.initialized(n)
				p.valid, p.systemID, p.timeline, p.standby, p.clean = true, "sysid-"+n.name, 1, false, true
				p.history = []branch{{1, 0}}
				out.SystemID = p.systemID
				report(true)
			})
		})
	case decide.Clone:
		n.clone(a, up, n.w.node(a.Holder.Member), report)
	case decide.Rewind:
		n.rewind(up, func(r decide.Certainty) { n.sidecar(func() { finish(r) }) })
	case decide.SetSync:
		p.closed = false
		p.setSync(a.Sync)
		report(true)
	case decide.StartPrimary:
		if !p.running() {
			p.sync, p.former, p.closed = a.Sync, a.Sync, a.Closed
		}
		if !p.start(schema.RolePrimary, a.Epoch, a.Deadline, report) {
			report(false)
		}
	case decide.StartStandby:
		p.upstream = a.From.Member
		if p.valid && !p.running() {
			p.standby = true // standby.signal is written before the start
		}
		if !p.start(schema.RoleStandby, 0, 0, report) {
			report(false)
		}
	case decide.Follow:
		p.upstream, p.streaming = a.From.Member, false
		report(true)
	case decide.CheckHistory:
		n.history(up, out, report)
	case decide.Promote:
		if !p.arm(a.Epoch, a.Deadline) {
			report(false)
			return
		}
		n.w.ledger.mayPromote(n, a.Epoch)
		p.sync, p.former = a.Sync, a.Sync
		p.promote(a.Timeline, report)
	case decide.Checkpoint:
		n.w.after(n.w.between(5*time.Millisecond, 100*time.Millisecond), func() {
			p.written(func() {
				p.redo = len(p.wal)
				report(true)
			})
		})
	case decide.StopFast:
		p.stop(func() {})
		var gone func()
		gone = func() { // whoever stopped it
			if p.running() {
				n.w.after(20*time.Millisecond, func() { n.sidecar(gone) })
				return
			}
			report(true)
		}
		gone()
	}
}

// clone copies another server, the holder or a standby of its; it takes a while and fails if the other one is gone by then.
func (n *node) clone(a decide.Action, up, holder *node, report func(bool)) {
	gen := n.gen
	done := n.w.ledger.cloning(n, up)
	end := report
	report = func(ok bool) {
		done()
		end(ok)
	}
	follows := func() bool {
		return up.pg.writable() || up != holder && up.pg.running() && !up.pg.starting && up.pg.standby && canFollow(up.pg.timeline, len(up.pg.wal), holder.pg)
	}
	n.w.after(20*time.Second, func() { report(false) }) // a connection that was lost
	n.w.send(n.name, up.name, func() {
		if !holder.pg.writable() || holder.pg.timeline != up.pg.timeline || len(up.pg.wal) > len(holder.pg.wal) || !n.w.connected(n.name, holder.name) {
			report(false)
			return
		}
		if n.w.o.NoRoom && (n.pg.valid || n.pg.half) && !n.removeFirst(a, up, n.gen == gen && follows()) {
			report(false) // the disk is full
			return
		}
		n.w.after(n.w.between(500*time.Millisecond, 3*time.Second), func() {
			n.pg.written(func() {
				if n.pg.running() || !follows() || up.frozen || !n.w.connected(n.name, up.name) {
					report(false)
					return
				}
				n.w.ledger.cloned(n, up)
				n.pg.copyFrom(up.pg)
				report(true)
			})
		})
	})
}

// history compares our WAL with another server's history.
func (n *node) history(up *node, out *decide.Outcome, report func(bool)) {
	n.w.send(n.name, up.name, func() {
		up.host(func() {
			if !up.pg.running() || up.pg.starting {
				return
			}
			follows := canFollow(n.pg.timeline, len(n.pg.wal), up.pg)
			up.w.send(up.name, n.name, func() {
				n.host(func() {
					out.Follows = follows
					report(true)
				})
			})
		})
	})
}
