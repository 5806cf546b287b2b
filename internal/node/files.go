package node

// files says how many of the descriptors that this process may have open each kind of use gets, so that none takes those of another.
// 0: the default of that use.
type files struct {
	deciding    int // connections that have not said what they speak
	http        int // of pages and polls
	connections int // of clients, of both carriers, those that resume not counted
	allocations int // of the relay
	streams     int // clients of the relay that come by TCP or TLS
}

// shareFiles shares out a process's limit; 0: there is none. Shares are sixteenths: one for what the server itself opens, one for
// who has not said what it speaks, two for HTTP, eight for clients with an eighth of that again for those that resume, three for the
// relay. A relay alone gets the share of clients, which it has none of.
func shareFiles(limit int, signaling bool) files {
	if limit <= 0 {
		return files{}
	}
	part := max(limit/16, 1)
	f := files{deciding: min(part, 4096), http: min(2*part, 4096), connections: 8 * part, allocations: 2 * part, streams: part}
	if !signaling {
		f.connections, f.allocations, f.streams = 0, 6*part, 6*part
	}
	return f
}

// Defaults of numbers that a share may be less than.
const (
	defaultConnections = 50_000
	defaultAllocations = 10_000
)

// atMost bounds a number by a share: 0 is its default, a negative one no limit.
func atMost(n, byDefault, share int) int {
	if n == 0 && byDefault <= share {
		return 0
	}
	if share > 0 && (n <= 0 || n > share) {
		return share
	}
	return n
}
