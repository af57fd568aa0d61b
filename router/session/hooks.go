package session

import "howdah/router/wire"

// Hooks are called from within FromServer. They must not block, nor call the Session.
type Hooks interface {
	// Key is given the server's cancel key and returns, in the same size, the one that the client
	// gets. An error ends the session.
	Key(server wire.Key) (wire.Key, error)
	// Notices returns messages for the client that belong in front of the key that it gets.
	Notices() []byte
	// Authenticated is called once the server has accepted the client, before the client is told. An error ends the session.
	Authenticated() *wire.Error
	// Error is called for each ErrorResponse of the server.
	Error(sqlstate string, fatal bool)
}

// Follower are hooks of which those of a session may have more.
type Follower interface {
	// Parameter is called for each ParameterStatus of the server.
	Parameter(name, value []byte)
	// Notified is called for each NotificationResponse.
	Notified()
	// Leaving is asked when the server says that it ends the session, while that is idle: with FATAL, or with the warning that it gives
	// where it goes at once (quickdie in PostgreSQL's src/backend/tcop/postgres.c). Where it returns true the client is not told.
	Leaving(fatal bool) bool
	// Unhidden is called when what HideBlock told of has been answered.
	Unhidden()
}
