// Package local runs a whole cluster on one machine: for each member a howdah launch and a
// howdah sidecar, and routers, all of them child processes of the built binary. howdah demo, the benchmark and the
// tests with whole clusters stand on it.
//
// It plays the parts of systemd and of fate: a process that ends unasked is started again after a
// pause, and members can be killed, frozen and thawed on purpose. Nothing here knows how a cluster
// works; what it says about one it has from the members' HTTP APIs.
//
// Every child is in a process group of its own, so that Ctrl-C on a terminal reaches only us, and gets a
// signal from the kernel when we die. Backends call setsid, so a member's processes are found by descent
// from its launcher and never by group or by name.
package local
