package launch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"go.uber.org/zap"
)

// bodySize bounds a request; passwords and a handful of settings need far less.
const bodySize = 1 << 20

// httpServer serves the socket's API. calls ends what waits (long polls, jobs waited for) at shutdown.
func (s *Server) httpServer(calls context.Context) *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", s.serveStatus)
	mux.HandleFunc("POST /start", serve(func(_ context.Context, r StartRequest) (any, error) {
		if err := checkClock(r.ClientNow, s.o.Now()); err != nil {
			return nil, err
		}
		return nil, s.start(r)
	}))
	mux.HandleFunc("POST /stop", serve(func(_ context.Context, r StopRequest) (any, error) { return nil, s.stop(r.Mode) }))
	mux.HandleFunc("POST /arm", serve(func(_ context.Context, r armRequest) (any, error) { return nil, s.arm(r) }))
	mux.HandleFunc("POST /reload", func(w http.ResponseWriter, _ *http.Request) { answer(w, nil, s.reload()) })
	mux.HandleFunc("POST /run", func(w http.ResponseWriter, req *http.Request) {
		serve(func(ctx context.Context, r RunRequest) (any, error) {
			j, err := s.run(r)
			if err != nil {
				return nil, err
			}
			if req.URL.Query().Get("wait") == "true" {
				return s.waitJob(ctx, j), nil
			}
			return Job{ID: j.ID}, nil
		})(w, req)
	})
	mux.HandleFunc("GET /jobs/{id}", func(w http.ResponseWriter, req *http.Request) {
		j, err := s.findJob(req.PathValue("id"))
		if err != nil {
			answer(w, nil, err)
			return
		}
		s.mu.Lock()
		v := j.view(outputSize)
		s.mu.Unlock()
		answer(w, v, nil)
	})
	mux.HandleFunc("POST /jobs/{id}/cancel", func(w http.ResponseWriter, req *http.Request) {
		j, err := s.findJob(req.PathValue("id"))
		if err == nil {
			s.cancel(j)
		}
		answer(w, nil, err)
	})
	return &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
		BaseContext:       func(net.Listener) context.Context { return calls },
		ErrorLog:          zap.NewStdLog(s.log),
	}
}

// serveStatus answers at once, or with ?after=N as soon as Seq > N, after pollTime at the latest.
func (s *Server) serveStatus(w http.ResponseWriter, req *http.Request) {
	var after uint64
	wait := req.URL.Query().Has("after")
	if wait {
		var err error
		if after, err = strconv.ParseUint(req.URL.Query().Get("after"), 10, 64); err != nil {
			answer(w, nil, fmt.Errorf("%w: after: want a number", ErrInvalid))
			return
		}
	}
	timer := time.NewTimer(pollTime)
	defer timer.Stop()
	for {
		st, changed := s.status()
		if !wait || st.Seq > after {
			answer(w, st, nil)
			return
		}
		select {
		case <-changed:
		case <-timer.C:
			wait = false
		case <-req.Context().Done():
			wait = false
		}
	}
}

// serve decodes a request. Keys that are not known are ignored: a newer sidecar must be able to arm an older launcher.
func serve[T any](do func(context.Context, T) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		var in T
		// Server.ReadTimeout would end requests that wait for a job as well.
		deadline := http.NewResponseController(w).SetReadDeadline
		derr := deadline(time.Now().Add(10 * time.Second))
		err := json.NewDecoder(http.MaxBytesReader(w, req.Body, bodySize)).Decode(&in)
		if err := errors.Join(err, derr, deadline(time.Time{})); err != nil {
			answer(w, nil, fmt.Errorf("%w: the body is not understood", ErrInvalid)) // not the cause: it may quote a secret
			return
		}
		out, err := do(req.Context(), in)
		answer(w, out, err)
	}
}

func answer(w http.ResponseWriter, out any, err error) {
	status := http.StatusOK
	if err != nil {
		e := wireError{Code: "internal", Message: err.Error()}
		status = http.StatusInternalServerError
		for _, r := range refusals {
			if errors.Is(err, r.err) {
				e.Code, status = r.code, r.status
				break
			}
		}
		out = e
	}
	if out == nil {
		out = struct{}{}
	}
	b, merr := json.Marshal(out)
	if merr != nil {
		status, b = http.StatusInternalServerError, []byte(`{"code":"internal","message":"the answer cannot be encoded"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(b)
}
