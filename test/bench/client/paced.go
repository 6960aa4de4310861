package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"posthorn.dev/bench/measure"
)

// paced sends one notification after the other to random users, each when it is due, whatever became of those before. The
// time is from when it was due until it is on the user's stream.
func paced(ctx context.Context, j job) error {
	var phase atomic.Int32
	var from, to atomic.Int64
	to.Store(1<<63 - 1)
	r := newReceived(j.Users, func(at time.Time) bool {
		return from.Load() > 0 && at.UnixNano() >= from.Load() && at.UnixNano() < to.Load()
	})
	target, openMs, err := opened(ctx, j, r)
	if err != nil {
		return err
	}
	var sent atomic.Int64
	var refused, failed mistakes
	var calls measure.Histogram
	var senders sync.WaitGroup
	send := func(n, user int, due time.Time) {
		defer senders.Done()
		problems, err := target.send(ctx, n, []int{user}, bodyAt(due))
		if err != nil {
			failed.add(1, err.Error())
			return
		}
		sent.Add(r.took([]int{user}, problems, &refused))
		if r.measures(due) {
			calls.Record(time.Since(due))
		}
	}
	senders.Add(1)
	go func() {
		defer senders.Done()
		random := rand.New(rand.NewPCG(3, uint64(j.Users)))
		plan := measure.Schedule{Start: time.Now(), PerSecond: j.PerSecond}
		plan.Run(func(n int, due time.Time) bool {
			switch phase.Load() {
			case measuring:
				from.CompareAndSwap(0, due.UnixNano())
			case over:
				return false
			}
			senders.Add(1)
			go send(n, random.IntN(j.Users), due)
			return true
		})
	}()
	rate, perSecond := phases(j, &phase, &r.arrived)
	to.Store(time.Now().UnixNano())
	senders.Wait()
	drained := waitUntil(j.drain(), func() bool { return r.arrived.Load() >= sent.Load() })
	report("result", r.into(map[string]any{
		"rate":         rate,
		"perSecond":    perSecond,
		"openMs":       openMs,
		"callP50Ms":    calls.Quantile(0.5),
		"callP99Ms":    calls.Quantile(0.99),
		"refused":      refused.count.Load(),
		"failed":       failed.count.Load(),
		"firstFailure": first(failed.first, refused.first),
		"drainMs":      drained.Milliseconds(),
	}, sent.Load()))
	return nil
}
