package measure

import (
	"math"
	"testing"
	"time"
)

func TestQuantilesAreWithinOnePercent(t *testing.T) {
	var h Histogram
	for i := 1; i <= 1000; i++ {
		h.Record(time.Duration(i) * time.Millisecond)
	}
	for q, want := range map[float64]float64{0.5: 500, 0.9: 900, 0.99: 990, 1: 1000} {
		if got := h.Quantile(q); math.Abs(got-want) > want*0.011 {
			t.Errorf("quantile %v: %v, not %v", q, got, want)
		}
	}
}

func TestNothingRecordedIsNoTime(t *testing.T) {
	var h Histogram
	if got := h.Quantile(0.99); got != 0 || h.Count() != 0 {
		t.Errorf("%v of %v", got, h.Count())
	}
}

func TestNoQuantileIsAboveTheLongest(t *testing.T) {
	var h Histogram
	h.Record(7 * time.Millisecond)
	if got := h.Quantile(0.99); got > 7 {
		t.Errorf("%v ms, when all took 7", got)
	}
}

func TestTheScheduleDoesNotDrift(t *testing.T) {
	s := Schedule{Start: time.Unix(0, 0), PerSecond: 3}
	if got := s.Due(3_000_000); got != time.Unix(1_000_000, 0) {
		t.Errorf("the 3,000,000th at 3 a second is due at %v", got)
	}
}

func TestAStallIsMadeUpForAndCountsFromWhenItWasDue(t *testing.T) {
	const stall = 50 * time.Millisecond
	s := Schedule{Start: time.Now(), PerSecond: 1000}
	var late time.Duration
	sent := 0
	s.Run(func(n int, due time.Time) bool {
		if n == 0 {
			time.Sleep(stall)
		}
		if n == 1 {
			late = time.Since(due)
		}
		sent++
		return n < 20
	})
	if took := time.Since(s.Start); took > 2*stall {
		t.Errorf("21 sends of 1,000 a second took %v: those due during the stall were not sent at once", took)
	}
	if late < stall-2*time.Millisecond || sent != 21 {
		t.Errorf("after a stall of %v the next one counted as %v late, of %d sent", stall, late, sent)
	}
}

func TestNothingIsSentBeforeItIsDue(t *testing.T) {
	Schedule{Start: time.Now(), PerSecond: 500}.Run(func(n int, due time.Time) bool {
		if time.Now().Before(due) {
			t.Errorf("number %d was early", n)
		}
		return n < 10
	})
}
