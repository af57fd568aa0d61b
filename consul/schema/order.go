package schema

// OrderKind names what an operator orders one member to do, through its API.
type OrderKind string

// The kinds of order.
const (
	OrderRestart OrderKind = "restart" // stop Postgres and start it again
	OrderReinit  OrderKind = "reinit"  // clone the data directory anew
)

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
