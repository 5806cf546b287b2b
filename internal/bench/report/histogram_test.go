package report

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestHistogramKnowsQuantilesWithinItsBuckets(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for name, draw := range map[string]func() int64{
		"small": func() int64 { return random.Int64N(128) },
		"wide":  func() int64 { return int64(math.Exp(random.Float64() * 40)) },
		"equal": func() int64 { return 1_000_000 },
	} {
		var h Histogram
		var values []int64
		for range 5000 {
			v := draw()
			h.Add(v)
			values = append(values, v)
		}
		slices.Sort(values)
		for _, q := range []float64{0, 0.5, 0.99, 1} {
			want := float64(values[min(int(q*5000), 4999)])
			if got := h.Quantile(q); math.Abs(got-want) > want/100 {
				t.Errorf("%s: quantile %v is %v, want %v", name, q, got, want)
			}
		}
	}
	var h Histogram
	if h.Quantile(0.5) != 0 {
		t.Error("nothing has a quantile")
	}
	h.Add(-5) // a clock that was set back
	h.Add(math.MaxInt64)
	if h.Quantile(0) != 0 || h.Quantile(1) < math.MaxInt64*0.98 {
		t.Errorf("from %v to %v", h.Quantile(0), h.Quantile(1))
	}
}
