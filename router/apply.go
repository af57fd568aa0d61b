package router

import "errors"

// live are the options in force: those that the router was made with, and what Apply has changed since. Those that nothing changes stand in r.o.
func (r *Router) live() *Options { return r.changed.Load() }

// Apply changes what can be changed while the router runs, for sessions and attempts that begin from now on; the rest of o is not looked at. An
// error leaves everything as it was.
func (r *Router) Apply(o Options) error {
	r.applying.Lock()
	defer r.applying.Unlock()
	n := *r.live()
	n.FailoverWait, n.LoginTimeout, n.DialTimeout, n.CancelTimeout = o.FailoverWait, o.LoginTimeout, o.DialTimeout, o.CancelTimeout
	n.DrainTimeout, n.FarewellTimeout, n.TCPUserTimeout = o.DrainTimeout, o.FarewellTimeout, o.TCPUserTimeout
	n.MaxClients, n.ReadOnlyFallback, n.Consistency = o.MaxClients, o.ReadOnlyFallback, o.Consistency
	n.Rules = o.Rules
	n.AdminUsers, n.StatsUsers = o.AdminUsers, o.StatsUsers
	n.TLSCertFile, n.TLSKeyFile = o.TLSCertFile, o.TLSKeyFile
	if err := errors.Join(n.Validate(), n.validateConsole()); err != nil {
		return err
	}
	if before := r.live(); n.TLSCertFile != before.TLSCertFile || n.TLSKeyFile != before.TLSKeyFile {
		if err := r.pair.use(n.TLSCertFile, n.TLSKeyFile); err != nil {
			return err
		}
	}
	n.parsed, _ = n.parseRules() // Validate has read them
	r.changed.Store(&n)
	return nil
}
