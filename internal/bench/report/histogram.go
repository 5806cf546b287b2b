// Package report has the data types of load test reports: a histogram that many goroutines may
// write, and a summary of latencies.
package report

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Histogram counts non-negative values in buckets whose width is below 1.6 % of the value, in fixed
// memory and without a lock: the receivers of a load share it, and may not allocate per packet.
type Histogram struct{ buckets [57*64 + 128]atomic.Int64 }

// The first 128 buckets hold one value each; each doubling of the value above has 64 buckets.
func bucket(v int64) int {
	shift := max(0, bits.Len64(uint64(v))-7)
	return shift*64 + int(v>>shift)
}

// middle of a bucket.
func middle(i int) float64 {
	if i < 128 {
		return float64(i)
	}
	shift := i/64 - 1
	return (float64(i-shift*64) + 0.5) * float64(uint64(1)<<shift)
}

// Add counts a value, and a negative value as 0: the clock was set back.
func (h *Histogram) Add(v int64) { h.buckets[bucket(max(0, v))].Add(1) }

// Count is the number of values.
func (h *Histogram) Count() (all int64) {
	for i := range h.buckets {
		all += h.buckets[i].Load()
	}
	return all
}

// Quantile is about the smallest value that at least q of all values do not exceed, and 0 when
// there are none.
func (h *Histogram) Quantile(q float64) float64 {
	left := int64(q*float64(h.Count())) + 1
	last := 0
	for i := range h.buckets {
		n := h.buckets[i].Load()
		if n == 0 {
			continue
		}
		if left -= n; left <= 0 {
			return middle(i)
		}
		last = i
	}
	return middle(last)
}

// Latency is how long an operation took, in microseconds, as quantiles. It counts from when the
// operation was due and not from when the generator came to do it.
type Latency struct {
	Count  int64   `json:"count"`
	P50us  float64 `json:"p50us"`
	P99us  float64 `json:"p99us"`
	P999us float64 `json:"p999us"`
}

// Latency summarizes values in nanoseconds.
func (h *Histogram) Latency() Latency {
	return Latency{
		Count:  h.Count(),
		P50us:  h.Microseconds(0.5),
		P99us:  h.Microseconds(0.99),
		P999us: h.Microseconds(0.999),
	}
}

// Microseconds is a quantile of values in nanoseconds.
func (h *Histogram) Microseconds(q float64) float64 {
	return Round(h.Quantile(q) / float64(time.Microsecond))
}

// Round keeps three decimals: more would be noise.
func Round(f float64) float64 {
	return float64(int64(f*1000+0.5)) / 1000
}

// Rounded is Round for a field that is left out when it was not measured.
func Rounded(f float64) *float64 {
	f = Round(f)
	return &f
}
