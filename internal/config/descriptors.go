package config

// Descriptors shares out the file descriptors of this process, so that no use exhausts those of
// another. 0 is the default of a use.
type Descriptors struct {
	Pending     int // connections whose protocol is not yet detected
	HTTP        int // connections of pages and of Socket.IO polling
	Connections int // signaling connections of all transports, resumes not counted
	Allocations int // relay allocations
	Streams     int // TCP and TLS connections to the relay
}

// shareDescriptors shares out the limit of a process; 0 is unlimited. Shares are sixteenths: one
// for the server itself, one for pending connections, two for HTTP, eight for signaling connections
// with an eighth of that again for resumes, three for the relay. A standalone relay also gets the
// share of signaling.
func shareDescriptors(limit int, signaling bool) Descriptors {
	if limit <= 0 {
		return Descriptors{}
	}
	part := max(limit/16, 1)
	d := Descriptors{
		Pending:     min(part, 4096),
		HTTP:        min(2*part, 4096),
		Connections: 8 * part,
		Allocations: 2 * part,
		Streams:     part,
	}
	if !signaling {
		d.Connections, d.Allocations, d.Streams = 0, 6*part, 6*part
	}
	return d
}

// atMost bounds a setting by a share. 0 is the default of the setting, a negative number unlimited.
func atMost(n, byDefault, share int) int {
	if n == 0 && byDefault <= share {
		return 0
	}
	if share > 0 && (n <= 0 || n > share) {
		return share
	}
	return n
}
