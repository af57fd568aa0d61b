// Package sim runs many members in one thread under a simulated clock: the real
// decide.Decide over models of Consul, the network, Postgres, the launcher and clocks.
//
// A run is made by its seed alone. Nothing in it waits, sleeps or starts a goroutine: a World is a
// heap of events in the order of their time, and ties go by the order of their making.
//
// What the models assume, and what therefore a run cannot find:
//
//   - A launcher's fence always fires by its deadline plus Grace, also when the launcher itself
//     is frozen: a kernel timer sees to that. On the thaw of a whole host it fires before Postgres runs.
//   - Consul is linearizable: a transaction is applied whole, at one moment.
//   - Postgres's WAL is a list of writes; a standby's is a prefix of its upstream's, or it has diverged.
package sim
