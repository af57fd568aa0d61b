// Package launch is howdah launch: the small supervisor that owns the postmaster and
// knows one more thing, the deadline of a primary. Past it Postgres is killed, whatever
// has become of the sidecar: crashed, frozen, stuck in a syscall, cut off.
//
// Server runs beside Postgres, often as a container's PID 1; the sidecar drives it by
// Client, HTTP+JSON over a unix socket. The server outlives the sidecar, which finds
// Postgres, epoch and deadline again in Status.
//
// Every child of the server is started by one thread (spawner) and reaped in one
// place (children): nothing here may use os/exec, whose own wait would lose the race.
package launch
