package schema

// OrderKind names what an operator orders one member to do, through its API.
type OrderKind string

// The kinds of order.
const (
	OrderRestart OrderKind = "restart" // stop Postgres and start it again
	OrderReinit  OrderKind = "reinit"  // clone the data directory anew
)

// ReinitPlan is what a reinit of a member would throw away: GET /reinit on its API.
type ReinitPlan struct {
	DataDir string `json:"data_dir"`
	// Bytes is what the data directory takes, tablespaces elsewhere left out.
	Bytes int64 `json:"bytes"`
	// From is the member that it would be cloned from.
	From string `json:"from"`
	// Refusal says why it cannot be done now; empty if it can.
	Refusal string `json:"refusal,omitempty"`
}

// OrderStatus is how far the newest order of a member has come.
type OrderStatus struct {
	ID   string    `json:"id"`
	Kind OrderKind `json:"kind"`
	// Step is what is being done; empty once Ended.
	Step string `json:"step,omitempty"`
	// Ended is set when the order is over; Error then says why it came to nothing, and is empty where it was carried out.
	Ended bool   `json:"ended,omitempty"`
	Error string `json:"error,omitempty"`
}
