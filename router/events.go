package router

import (
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"howdah/consul/schema"
)

// keepEvents is how many events are kept.
const keepEvents = 1000

// eventLog holds the newest events, oldest first.
type eventLog struct {
	mu   sync.Mutex
	list []schema.Event
}

func (l *eventLog) add(e schema.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.list) >= keepEvents {
		l.list = slices.Delete(l.list, 0, len(l.list)-keepEvents+1)
	}
	l.list = append(l.list, e)
}

func (l *eventLog) all() []schema.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]schema.Event{}, l.list...)
}

// record adds an event of this router.
func (r *Router) record(kind schema.EventKind, epoch schema.Epoch, detail string) {
	r.log.Info("event", zap.String("kind", string(kind)), zap.Uint64("epoch", uint64(epoch)), zap.String("detail", detail))
	r.events.add(schema.Event{Kind: kind, At: r.now(), Wall: time.Now(), By: r.o.Name, Epoch: epoch, Detail: detail})
}
