// Package boottime reads CLOCK_BOOTTIME, the clock by which leases are counted.
//
// Go's time.Now carries CLOCK_MONOTONIC, which stands still while a machine is
// suspended; a lease counted by it would outlive its real time.
package boottime

import (
	"golang.org/x/sys/unix"

	"howdah/consul/schema"
)

// Now returns the nanoseconds since this machine booted, time in suspend included.
func Now() schema.Instant {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		// Linux has had this clock since 2.6.39; without it no lease can be kept.
		panic("CLOCK_BOOTTIME cannot be read: " + err.Error())
	}
	return schema.Instant(ts.Nano())
}
