//go:build race

package router_test

// raceEnabled: the race detector allocates on its own account.
const raceEnabled = true
