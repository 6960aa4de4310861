// Package measure holds what a load client knows about time: when sends are due, and how long things took.
package measure

import (
	"math"
	"sync/atomic"
	"time"
)

// Histogram counts durations in steps of one percent between a microsecond and some minutes, without locks.
type Histogram struct {
	counts [2048]atomic.Uint64
	max    atomic.Int64
}

var step = math.Log(1.01)

func (h *Histogram) Record(d time.Duration) {
	h.counts[min(max(int(math.Log(float64(d)/1e3)/step), 0), len(h.counts)-1)].Add(1)
	for {
		seen := h.max.Load()
		if int64(d) <= seen || h.max.CompareAndSwap(seen, int64(d)) {
			return
		}
	}
}

// Count is how many were recorded.
func (h *Histogram) Count() (total uint64) {
	for i := range h.counts {
		total += h.counts[i].Load()
	}
	return total
}

// Quantile is in milliseconds, within one percent; 0 when nothing was recorded.
func (h *Histogram) Quantile(q float64) float64 {
	total := h.Count()
	if total == 0 {
		return 0
	}
	rank := uint64(math.Ceil(q * float64(total)))
	var seen uint64
	for i := range h.counts {
		if seen += h.counts[i].Load(); seen >= rank {
			return min(math.Exp((float64(i)+0.5)*step)/1e3, float64(h.max.Load())/1e6)
		}
	}
	return float64(h.max.Load()) / 1e6
}

// Into adds the usual quantiles to a result, under the names that all results have.
func (h *Histogram) Into(result map[string]any) map[string]any {
	result["p50Ms"] = h.Quantile(0.5)
	result["p90Ms"] = h.Quantile(0.9)
	result["p99Ms"] = h.Quantile(0.99)
	result["maxMs"] = float64(h.max.Load()) / 1e6
	result["measured"] = h.Count()
	return result
}
