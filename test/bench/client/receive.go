package main

import (
	"sync/atomic"
	"time"
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
	// One for every batch of settled notifications, arrived or refused: leave to send another.
	leave   chan struct{}
	settled atomic.Int64
	batch   int64
	phase   *atomic.Int32
	latency histogram
}

func newReceived(users, batch, window int, phase *atomic.Int32) *received {
	r := &received{
		byUser:   make([]atomic.Int64, users),
		accepted: make([]atomic.Int64, users),
		leave:    make(chan struct{}, 1<<20),
		batch:    int64(batch),
		phase:    phase,
	}
	for range max(window/batch, 1) {
		r.leave <- struct{}{}
	}
	return r
}

func (r *received) notification(user int, body string) {
	if at, ok := sentAt(body); ok && r.phase.Load() == measuring {
		r.latency.record(time.Since(at))
	}
	r.byUser[user].Add(1)
	r.arrived.Add(1)
	r.settle(1)
}

// settle counts what needs no longer be waited for.
func (r *received) settle(n int64) {
	after := r.settled.Add(n)
	for range after/r.batch - (after-n)/r.batch {
		r.leave <- struct{}{}
	}
}

// lost counts notifications that were accepted and never came. Doubles of one user do not make up for another's loss.
func (r *received) lost() (lost int64) {
	for user := range r.byUser {
		lost += max(r.accepted[user].Load()-r.byUser[user].Load(), 0)
	}
	return lost
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
