package signaling

// DefaultLimits are the limits of a hub whose Config sets none.
func DefaultLimits() Limits {
	var l Limits
	l.defaults()
	return l
}
