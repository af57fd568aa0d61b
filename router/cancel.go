package router

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"go.uber.org/zap"

	"howdah/router/wire"
)

// relayCancel brings a cancel request to the server of the session that it names, or to the router that has that session. The client's
// connection is closed afterwards, as PostgreSQL does it: the end of it says that the signal was
// sent. A key that is no session's is passed over without a word, so that none can be guessed.
func (r *Router) relayCancel(ctx context.Context, key wire.Key, log *zap.Logger) {
	if r.cancelOwn(ctx, key, log) || r.forwardCancel(ctx, key, log) {
		return
	}
	r.metrics.cancelled("nobody")
}

// cancelOwn carries out a cancel request for a session of this router; false if it is for none.
func (r *Router) cancelOwn(ctx context.Context, key wire.Key, log *zap.Logger) bool {
	address, server, found := r.sessions.target(key)
	if !found {
		return false
	}
	if err := r.sendCancel(ctx, address, server); err != nil {
		log.Info("cancel request not delivered", zap.String("server", address), zap.Error(err))
	}
	return true
}

// CancelForwarded carries out a cancel request that another router passes on; false if it is for no session of this router. It goes no
// further, so no request goes round in circles, whatever its key says.
func (r *Router) CancelForwarded(ctx context.Context, key []byte) bool {
	k, err := wire.ParseKey(key)
	return err == nil && r.cancelOwn(ctx, k, r.log)
}

// sendCancel delivers one cancel request and waits until the server has dealt with it, which it
// shows by closing the connection.
func (r *Router) sendCancel(ctx context.Context, address string, key wire.Key) error {
	ctx, stop := context.WithTimeout(ctx, r.live().CancelTimeout)
	defer stop()
	conn, err := r.dialServer(ctx, address)
	if err != nil {
		return fmt.Errorf("cancel request: %w", err)
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline)
	if _, err := conn.Write(key.CancelRequest()); err != nil {
		return fmt.Errorf("cancel request: %w", err)
	}
	var b [1]byte
	if _, err := conn.Read(b[:]); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("cancel request: waiting for the server to close: %w", err)
	}
	r.metrics.cancelled("server")
	return nil
}

// cancelAbandoned cancels what runs in a session whose client has vanished.
func (r *Router) cancelAbandoned(c *client) {
	address, key, found := r.sessions.targetOf(c)
	if !found {
		return
	}
	begun := time.Now()
	if err := r.sendCancel(context.Background(), address, key); err != nil {
		c.log.Info("the statement of a client that vanished could not be cancelled", zap.String("server", address), zap.Error(err))
		return
	}
	c.log.Debug("the statement of a client that vanished was cancelled", zap.Duration("took", time.Since(begun)))
}
