package schema

import (
	"encoding/json"
	"fmt"
	"math"
	"time"
)

// Instant is a reading of one machine's CLOCK_BOOTTIME, in nanoseconds since that
// machine booted. It goes on during suspend, which Go's monotonic clock does not.
// Instants of two machines are never compared: whatever crosses a network is a
// duration, or is timed anew by whoever receives it. The zero Instant means never.
type Instant int64

// Never is the zero Instant: a deadline that is not set, an event that was not seen.
const Never Instant = 0

// Forever is later than every reading of the clock.
const Forever Instant = math.MaxInt64

// Add returns i moved by d.
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d) }

// Sub returns the time from j to i.
func (i Instant) Sub(j Instant) time.Duration { return time.Duration(i - j) }

// Before reports whether i is earlier than j.
func (i Instant) Before(j Instant) bool { return i < j }

// Reached reports whether now is at or past i. Never is never reached.
func (i Instant) Reached(now Instant) bool { return i != Never && now >= i }

// Latest returns the later of a and b.
func Latest(a, b Instant) Instant { return max(a, b) }

// Duration is a time.Duration whose text form is Go's ("3s", "500ms"), in JSON and YAML.
type Duration time.Duration

// D returns d as a time.Duration.
func (d Duration) D() time.Duration { return time.Duration(d) }

// String returns Go's text form, for example "1.5s".
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. A number without a unit is refused.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("duration %q: want a number with a unit, such as 500ms, 3s or 1m", b)
	}
	*d = Duration(v)
	return nil
}

// UnmarshalJSON refuses bare numbers with a message that says what to write.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("duration %s: want a quoted number with a unit, such as \"3s\"", b)
	}
	return d.UnmarshalText([]byte(s))
}
