package bench

import (
	"math/bits"
	"sync/atomic"
)

// histogram counts values of 0 ns and more in buckets whose width is below 1.6 % of the value, in fixed memory and without a lock.
type histogram struct{ buckets [57*64 + 128]atomic.Int64 }

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

func (h *histogram) add(v int64) { h.buckets[bucket(max(0, v))].Add(1) }

func (h *histogram) count() (all int64) {
	for i := range h.buckets {
		all += h.buckets[i].Load()
	}
	return all
}

// quantile is about the smallest value that at least q of all do not exceed; 0 when there are none.
func (h *histogram) quantile(q float64) float64 {
	left := int64(q*float64(h.count())) + 1
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
