package main

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// histogram counts durations in steps of one percent between a microsecond and some minutes, without locks.
type histogram struct {
	counts [2048]atomic.Uint64
	max    atomic.Int64
}

var step = math.Log(1.01)

func (h *histogram) record(d time.Duration) {
	h.counts[min(max(int(math.Log(float64(d)/1e3)/step), 0), len(h.counts)-1)].Add(1)
	for {
		seen := h.max.Load()
		if int64(d) <= seen || h.max.CompareAndSwap(seen, int64(d)) {
			return
		}
	}
}

// quantile is in milliseconds, within one percent.
func (h *histogram) quantile(q float64) float64 {
	var total uint64
	for i := range h.counts {
		total += h.counts[i].Load()
	}
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

func (h *histogram) into(result map[string]any) map[string]any {
	result["p50Ms"] = h.quantile(0.5)
	result["p90Ms"] = h.quantile(0.9)
	result["p99Ms"] = h.quantile(0.99)
	result["maxMs"] = float64(h.max.Load()) / 1e6
	return result
}

// The phases of a job. What begins while measuring, and ends by then, is measured.
const (
	warming = iota
	measuring
	over
)

// phases walks a job through them, telling the benchmark, and returns what counter grew by per second of measuring.
func phases(j job, phase *atomic.Int32, counter *atomic.Int64) (rate float64, perSecond []int64) {
	time.Sleep(j.warmup())
	phase.Store(measuring)
	report("measuring", nil)
	began, first := time.Now(), counter.Load()
	last := first
	for second := 1; ; second++ {
		until := began.Add(min(time.Duration(second)*time.Second, j.measure()))
		time.Sleep(time.Until(until))
		now := counter.Load()
		if time.Since(began) >= j.measure() {
			rate = float64(now-first) / time.Since(began).Seconds()
			phase.Store(over)
			report("measured", nil)
			return rate, append(perSecond, now-last)
		}
		perSecond = append(perSecond, now-last)
		report("second", map[string]any{"count": now - last})
		last = now
	}
}

// mistakes counts what went wrong and keeps the first of it.
type mistakes struct {
	count atomic.Int64
	once  sync.Once
	first string
}

func (m *mistakes) add(n int, message string) {
	m.count.Add(int64(n))
	m.once.Do(func() { m.first = message })
}
