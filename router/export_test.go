package router

import "howdah/router/role"

// AskRoles has a test answer for the servers.
func (o *Options) AskRoles(ask role.Ask) { o.askRoles = ask }
