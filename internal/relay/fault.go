package relay

// Fault is what is wrong with one field of a Config, found by Validate or at Start. Whoever configures a relay by other names than
// ours, flags for example, tells by Field which of them to blame.
type Fault struct {
	Field string // "Listen", "Quota.Session", …
	Err   error
}

// Error implements error.
func (f *Fault) Error() string { return "relay: " + f.Err.Error() }

// Unwrap returns what is wrong, without the package's name.
func (f *Fault) Unwrap() error { return f.Err }

// blame makes a Fault of err; nil stays nil.
func blame(field string, err error) error {
	if err == nil {
		return nil
	}
	return &Fault{field, err}
}
