// Package cluster runs a whole cluster on one machine as if it were many: every member, router, Consul server and
// client has a host of its own, which is a network namespace and a control group, and every member a disk of its own, a
// file system in a loop device. So it can be cut off one way or both, lose its power, be frozen as a paused machine
// is, have a disk that stops, and a wall clock that jumps.
//
// Consul is real: three servers, and an agent on every host that needs one, as in production. What is run is the
// built binary, as user postgres. It needs root, ip, nft, fsfreeze and a cgroup2 mount.
//
// Nothing of the machine's own network is touched: the bridge lives in a namespace too. All names begin with
// howdah-<run>-, and the directory /tmp/howdah-campaign-<run> is locked for as long as its run lives: Sweep removes whatever
// belongs to runs that no longer do.
package cluster
