package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// endToEnd sends batches to random users, never more than the window ahead of what has arrived, so that the rate of
// sending is that of arriving and nothing piles up inside.
func endToEnd(ctx context.Context, j job) error {
	var phase atomic.Int32
	r := newReceived(j.Users, func(time.Time) bool { return phase.Load() == measuring })
	w := newWindow(j.Window, j.Batch)
	r.heard = func(int, int64) { w.settle(1) }
	target, openMs, err := opened(ctx, j, r)
	if err != nil {
		return err
	}
	var sent atomic.Int64
	var refused, failed mistakes
	var senders sync.WaitGroup
	stop := make(chan struct{})
	for i := range j.Callers {
		senders.Add(1)
		go func() {
			defer senders.Done()
			random := rand.New(rand.NewPCG(2, uint64(i)))
			users := make([]int, j.Batch)
			for {
				select {
				case <-stop:
					return
				case <-w.leave:
				}
				if phase.Load() == over {
					return
				}
				for n := range users {
					users[n] = random.IntN(j.Users)
				}
				problems, err := target.send(ctx, i, users, bodyAt(time.Now()))
				if err != nil {
					failed.add(1, err.Error())
					w.leave <- struct{}{}
					time.Sleep(50 * time.Millisecond)
					continue
				}
				sent.Add(r.took(users, problems, &refused))
				if len(problems) > 0 {
					w.settle(int64(len(problems)))
					time.Sleep(50 * time.Millisecond)
				}
			}
		}()
	}
	rate, perSecond := phases(j, &phase, &r.arrived)
	close(stop)
	senders.Wait()
	drained := waitUntil(j.drain(), func() bool { return r.arrived.Load() >= sent.Load() })
	report("result", r.into(map[string]any{
		"rate":         rate,
		"perSecond":    perSecond,
		"openMs":       openMs,
		"refused":      refused.count.Load(),
		"failed":       failed.count.Load(),
		"firstFailure": first(failed.first, refused.first),
		"drainMs":      drained.Milliseconds(),
	}, sent.Load()))
	return nil
}

// opened has every user's stream open; with hold, it also has the benchmark's word to go on.
func opened(ctx context.Context, j job, r *received) (target system, ms int64, err error) {
	if target, err = systemOf(j); err != nil {
		return nil, 0, err
	}
	began := time.Now()
	streams := 0
	if j.StreamConnections > 0 {
		streams = j.Users
		if err := target.open(ctx, r); err != nil {
			return nil, 0, err
		}
	}
	ms = time.Since(began).Milliseconds()
	report("open", map[string]any{"streams": streams, "ms": ms})
	if j.Hold {
		<-j.proceed
	}
	return target, ms, nil
}

// took notes which of these were accepted, and returns how many.
func (r *received) took(users []int, problems map[int]string, refused *mistakes) int64 {
	for n, user := range users {
		if message, is := problems[n]; is {
			refused.add(1, message)
			continue
		}
		r.accepted[user].Add(1)
	}
	return int64(len(users) - len(problems))
}
