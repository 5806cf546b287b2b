package relay

// ConfigError is what is wrong with one field of a Config, found by Validate or at Start. Whoever
// configures a relay by other names than ours, flags for example, tells by Field which of them to
// blame.
type ConfigError struct {
	Field string // "Listen", "Quota.Session", …
	Err   error
}

// Error implements error.
func (f *ConfigError) Error() string { return "relay: " + f.Err.Error() }

// Unwrap returns what is wrong, without the package's name.
func (f *ConfigError) Unwrap() error { return f.Err }

// configError makes a Fault of err; nil stays nil.
func configError(field string, err error) error {
	if err == nil {
		return nil
	}
	return &ConfigError{field, err}
}
