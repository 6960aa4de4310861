package main

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// flood sends a number of notifications as fast as they are accepted, then waits until all are on their users' streams,
// where those are open. It tells `accepted` when the last was taken in. One that holds keeps its streams, when it has told
// `measured`, until it is told to leave: to close ten thousand keeps a server busy, which others would measure.
func flood(ctx context.Context, j job) error {
	var began, ended atomic.Int64
	r := newReceived(j.Users, func(time.Time) bool { return false })
	r.heard = func(int, int64) {
		now := time.Now().UnixNano()
		began.CompareAndSwap(0, now)
		ended.Store(now)
	}
	target, openMs, err := opened(ctx, j, r)
	if err != nil {
		return err
	}
	var sent atomic.Int64
	var refused, failed mistakes
	start := time.Now()
	report("measuring", nil)
	batches := (j.Count + j.Batch - 1) / j.Batch
	err = forAll(batches, j.Callers, func(n int) error {
		random := rand.New(rand.NewPCG(4, uint64(n)))
		users := make([]int, min(j.Batch, j.Count-n*j.Batch))
		for i := range users {
			users[i] = random.IntN(j.Users)
		}
		for tries := 1; ; tries++ {
			problems, err := target.send(ctx, n, users, bodyAt(time.Unix(0, 0)))
			if err == nil {
				sent.Add(r.took(users, problems, &refused))
				return nil
			}
			// Overloaded is an answer to a flood: it is sent again. What was refused by a lost connection may come twice.
			if tries == 100 {
				return err
			}
			failed.add(1, err.Error())
			time.Sleep(100 * time.Millisecond)
		}
	})
	if err != nil {
		return err
	}
	took := time.Since(start)
	report("accepted", map[string]any{"count": sent.Load(), "ms": took.Milliseconds()})
	result := map[string]any{
		"acceptedPerSecond": float64(sent.Load()) / took.Seconds(),
		"openMs":            openMs,
		"refused":           refused.count.Load(),
		"failed":            failed.count.Load(),
		"firstFailure":      first(failed.first, refused.first),
	}
	if j.StreamConnections > 0 {
		waitUntil(j.drain(), func() bool { return r.arrived.Load() >= sent.Load() })
		if span := time.Duration(ended.Load() - began.Load()); span > 0 {
			result["rate"] = float64(r.arrived.Load()) / span.Seconds()
		}
		r.into(result, sent.Load())
	}
	report("measured", map[string]any{"count": sent.Load()})
	if j.Hold {
		<-j.leave
	}
	report("result", result)
	return nil
}
