package measure

import "time"

// Schedule is an even sequence of sends that does not wait for answers: a system that stalls is sent to all the same, and
// what was due meanwhile counts with the time it waited (no coordinated omission).
type Schedule struct {
	Start     time.Time
	PerSecond float64
}

// Due is when the n-th is due, from 0. It is reckoned from the start, so that lateness never adds up.
func (s Schedule) Due(n int) time.Time {
	return s.Start.Add(time.Duration(float64(n) / s.PerSecond * float64(time.Second)))
}

// Run calls send with every number and the time it was due at, never before it, until that returns false. A caller that
// was late makes up for it at once.
func (s Schedule) Run(send func(n int, due time.Time) bool) {
	for n := 0; ; n++ {
		due := s.Due(n)
		if wait := time.Until(due); wait > 0 {
			time.Sleep(wait)
		}
		if !send(n, due) {
			return
		}
	}
}
