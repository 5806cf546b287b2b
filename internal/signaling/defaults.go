package signaling

import "time"

// Defaults of Config.
const (
	DefaultResumeWindow = 20 * time.Second
	DefaultRate         = 30  // messages per second
	DefaultBurst        = 300 // messages
)

// DefaultLimits are the limits of a hub whose Config sets none.
func DefaultLimits() Limits {
	var l Limits
	l.defaults()
	return l
}
