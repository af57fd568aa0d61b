package api

import (
	"context"
	"errors"
	"net/http"

	"go.uber.org/zap"

	"howdah/consul/schema"
)

// OrderReply is the body of the answer to POST /restart and POST /reinit, code 202: it is begun. The order of this ID
// in GET /status shows how it ends.
type OrderReply struct {
	ID string `json:"id"`
}

// reinit orders a reinit (POST), or says what one would throw away (GET).
func (h *handler) reinit(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		only(http.MethodPost, h.order(schema.OrderReinit))(w, r)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), switchoverTimeout)
	defer cancel()
	plan, err := h.source.ReinitPlan(ctx)
	if err != nil {
		refuse(w, http.StatusServiceUnavailable, "what is in the data directory cannot be told: "+err.Error())
		return
	}
	answer(w, http.StatusOK, plan)
}

// reload answers 200 with a schema.ReloadReport, also if that names mistakes.
func (h *handler) reload(w http.ResponseWriter, r *http.Request) {
	if h.stopUnauthorized(w, r) {
		return
	}
	var nothing struct{}
	if code, err := readBody(w, r, "{} or nothing", &nothing); err != nil {
		refuse(w, code, err.Error())
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), switchoverTimeout)
	defer cancel()
	report := h.source.Reload(ctx)
	h.log.Info("reloaded", zap.Any("report", report), zap.String("asked_by", r.RemoteAddr))
	answer(w, http.StatusOK, report)
}

// order has the member do something with its own Postgres.
func (h *handler) order(kind schema.OrderKind) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if h.stopUnauthorized(w, r) {
			return
		}
		var nothing struct{}
		if code, err := readBody(w, r, "{} or nothing", &nothing); err != nil {
			refuse(w, code, err.Error())
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), switchoverTimeout)
		defer cancel()
		id, err := h.source.Order(ctx, kind)
		switch {
		case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
			refuse(w, http.StatusGatewayTimeout, "it is not known whether the "+string(kind)+" was begun; look at /status before asking again: "+err.Error())
		case err != nil:
			h.log.Info(string(kind)+" refused", zap.Error(err))
			refuse(w, http.StatusPreconditionFailed, err.Error())
		default:
			h.log.Info(string(kind)+" ordered", zap.String("id", id), zap.String("asked_by", r.RemoteAddr))
			answer(w, http.StatusAccepted, OrderReply{ID: id})
		}
	}
}
