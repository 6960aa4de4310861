package main

import (
	"sync"
	"sync/atomic"
	"time"
)

// The phases of a job. What begins while measuring, and ends by then, is measured.
const (
	warming = iota
	measuring
	over
)

// phases walks a job through them, telling the benchmark, and returns what counter grew by per second of measuring, which
// ends early when the benchmark says stop.
func phases(j job, phase *atomic.Int32, counter *atomic.Int64) (rate float64, perSecond []int64) {
	time.Sleep(j.warmup())
	phase.Store(measuring)
	report("measuring", nil)
	began, first := time.Now(), counter.Load()
	last := first
	for second := 1; ; second++ {
		until := began.Add(min(time.Duration(second)*time.Second, j.measure()))
		stopped := false
		select {
		case <-time.After(time.Until(until)):
		case <-j.stop:
			stopped = true
		}
		now := counter.Load()
		if stopped || time.Since(began) >= j.measure() {
			rate = float64(now-first) / time.Since(began).Seconds()
			phase.Store(over)
			report("measured", map[string]any{"count": now - first})
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

// waitUntil looks every few milliseconds whether it is so, for this long at most.
func waitUntil(patience time.Duration, so func() bool) (waited time.Duration) {
	began := time.Now()
	for !so() && time.Since(began) < patience {
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(began)
}
