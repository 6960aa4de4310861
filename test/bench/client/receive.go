package main

import (
	"sync/atomic"
	"time"

	"posthorn.dev/bench/measure"
)

// received is what all streams of a run have got. Everything in it may be used by many goroutines.
type received struct {
	arrived atomic.Int64
	// Notifications by user: what streams brought, and what senders were told is accepted.
	byUser, accepted []atomic.Int64
	// A sequence was missed, or came again or too late.
	gaps, doubles atomic.Int64
	// Streams that ended and were opened again, and why first.
	cuts mistakes
	// Whether one that was sent then is measured.
	measures func(at time.Time) bool
	latency  measure.Histogram
	// Called with the user and how many of theirs have come.
	heard func(user int, count int64)
}

func newReceived(users int, measures func(at time.Time) bool) *received {
	return &received{
		byUser:   make([]atomic.Int64, users),
		accepted: make([]atomic.Int64, users),
		measures: measures,
		heard:    func(int, int64) {},
	}
}

func (r *received) notification(user int, body string) {
	if at, ok := sentAt(body); ok && r.measures(at) {
		r.latency.Record(time.Since(at))
	}
	count := r.byUser[user].Add(1)
	r.arrived.Add(1)
	r.heard(user, count)
}

// lost counts notifications that were accepted and never came. Doubles of one user do not make up for another's loss.
func (r *received) lost() (lost int64) {
	for user := range r.byUser {
		lost += max(r.accepted[user].Load()-r.byUser[user].Load(), 0)
	}
	return lost
}

// into adds how the streams did to a result, once no more is awaited.
func (r *received) into(result map[string]any, sent int64) map[string]any {
	time.Sleep(100 * time.Millisecond) // For what should not come: doubles.
	result["sent"] = sent
	result["arrived"] = r.arrived.Load()
	result["lost"] = r.lost()
	result["gaps"] = r.gaps.Load()
	result["doubles"] = r.doubles.Load() + max(r.arrived.Load()-sent, 0)
	result["cuts"] = r.cuts.count.Load()
	result["firstCut"] = r.cuts.first
	return r.latency.Into(result)
}

// order follows one user's sequence on one stream after the other. For one goroutine.
type order struct {
	last int64
	r    *received
}

func (o *order) next(sequence int64) (isNew bool) {
	switch {
	case sequence <= o.last:
		o.r.doubles.Add(1)
		return false
	case sequence > o.last+1:
		o.r.gaps.Add(1)
	}
	o.last = sequence
	return true
}

// window lets so many batches be sent and not settled, arrived or refused.
type window struct {
	// One for every batch of settled notifications: leave to send another.
	leave   chan struct{}
	settled atomic.Int64
	batch   int64
}

func newWindow(size, batch int) *window {
	w := &window{leave: make(chan struct{}, 1<<20), batch: int64(batch)}
	for range max(size/batch, 1) {
		w.leave <- struct{}{}
	}
	return w
}

// settle counts what needs no longer be waited for.
func (w *window) settle(n int64) {
	after := w.settled.Add(n)
	for range after/w.batch - (after-n)/w.batch {
		w.leave <- struct{}{}
	}
}
