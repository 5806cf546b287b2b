package proc

import "time"

// Group is processes that are measured together, such as the nodes of a cluster.
type Group []PID

// CPU is the user and system time that the processes have used so far.
func (g Group) CPU() (sum time.Duration, err error) {
	for _, p := range g {
		d, err := p.CPU()
		if err != nil {
			return 0, err
		}
		sum += d
	}
	return sum, nil
}

// RSS is the resident memory of all, in KB. A page that several share counts several times.
func (g Group) RSS() (sum int, err error) {
	for _, p := range g {
		n, err := p.RSS()
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// During runs f and tells what the processes spent meanwhile, and how long that was.
func (g Group) During(f func() error) (spent, took time.Duration, err error) {
	before, err := g.CPU()
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	if err := f(); err != nil {
		return 0, 0, err
	}
	took = time.Since(start)
	after, err := g.CPU()
	return after - before, took, err
}
