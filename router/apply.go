package router

import (
	"crypto/tls"
	"errors"
	"fmt"
)

// live are the options in force: those that the router was made with, and what Apply has changed since. Those that nothing changes stand in r.o.
func (r *Router) live() *Options { return r.changed.Load() }

// Apply changes what can be changed while the router runs, for sessions and attempts that begin from now on; the rest of o is not looked at. An
// error leaves everything as it was.
func (r *Router) Apply(o Options) error {
	r.applying.Lock()
	defer r.applying.Unlock()
	n := r.live().Reloaded(o)
	if err := errors.Join(n.Validate(), n.validateConsole()); err != nil {
		return err
	}
	n.parsed, n.mappings, _ = n.parseRules() // Validate has read them
	n.limits, _ = n.parseLimits()
	if err := r.useFiles(n); err != nil {
		return err
	}
	r.changed.Store(&n)
	return nil
}

// Reloaded returns the options of a router that runs with n once it has been given o: with what Apply takes of o.
func (n Options) Reloaded(o Options) Options {
	n.FailoverWait, n.LoginTimeout, n.DialTimeout, n.CancelTimeout = o.FailoverWait, o.LoginTimeout, o.DialTimeout, o.CancelTimeout
	n.DrainTimeout, n.FarewellTimeout, n.TCPUserTimeout = o.DrainTimeout, o.FarewellTimeout, o.TCPUserTimeout
	n.MaxClients, n.ReadOnlyFallback, n.Consistency, n.StatementRouting = o.MaxClients, o.ReadOnlyFallback, o.Consistency, o.StatementRouting
	n.Rules, n.IdentMap, n.Limits = o.Rules, o.IdentMap, o.Limits
	n.AdminUsers, n.StatsUsers = o.AdminUsers, o.StatsUsers
	n.TLSCertFile, n.TLSKeyFile, n.TLSClientCAFile = o.TLSCertFile, o.TLSKeyFile, o.TLSClientCAFile
	return n
}

// useFiles goes over to the files for TLS with clients that n names. They are read before any is used.
func (r *Router) useFiles(n Options) error {
	if n.TLSMode == TLSDisable {
		return nil
	}
	seen := modified(n.TLSClientCAFile)
	roots, err := readAuthorities(clientCAFile, n.TLSClientCAFile)
	if err != nil {
		return err
	}
	if before := r.live(); n.TLSCertFile != before.TLSCertFile || n.TLSKeyFile != before.TLSKeyFile {
		pair, err := tls.LoadX509KeyPair(n.TLSCertFile, n.TLSKeyFile)
		if err != nil {
			return fmt.Errorf("tls-cert-file %s, tls-key-file %s: %w", n.TLSCertFile, n.TLSKeyFile, err)
		}
		r.pair.use(n.TLSCertFile, n.TLSKeyFile, &pair)
	}
	r.clientAuthorities.use(n.TLSClientCAFile, roots, seen)
	return nil
}
