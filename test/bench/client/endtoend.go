package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// system is what is measured: Posthorn over gRPC, or the peer over Socket.IO and HTTP.
type system interface {
	// open brings up every user's stream; what arrives goes to r until the process ends.
	open(ctx context.Context, r *received) error
	// send sends one notification to each of these and says which were refused, by index, with why.
	send(ctx context.Context, caller int, users []int, at time.Time) (refused map[int]string, err error)
}

// endToEnd sends batches to random users, never more than the window ahead of what has arrived, so that the rate of
// sending is that of arriving and nothing piles up inside.
func endToEnd(ctx context.Context, j job) error {
	var phase atomic.Int32
	r := newReceived(j.Users, j.Batch, j.Window, &phase)
	target, err := systemOf(j)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := target.open(ctx, r); err != nil {
		return err
	}
	openMs := time.Since(began).Milliseconds()
	report("open", map[string]any{"streams": j.Users, "ms": openMs})

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
				case <-r.leave:
				}
				if phase.Load() == over {
					return
				}
				for n := range users {
					users[n] = random.IntN(j.Users)
				}
				problems, err := target.send(ctx, i, users, time.Now())
				if err != nil {
					failed.add(1, err.Error())
					r.leave <- struct{}{}
					time.Sleep(50 * time.Millisecond)
					continue
				}
				for n, user := range users {
					if message, is := problems[n]; is {
						refused.add(1, message)
						continue
					}
					r.accepted[user].Add(1)
				}
				sent.Add(int64(len(users) - len(problems)))
				if len(problems) > 0 {
					r.settle(int64(len(problems)))
					time.Sleep(50 * time.Millisecond)
				}
			}
		}()
	}
	rate, perSecond := phases(j, &phase, &r.arrived)
	close(stop)
	senders.Wait()
	drainBegan := time.Now()
	for r.arrived.Load() < sent.Load() && time.Since(drainBegan) < j.drain() {
		time.Sleep(10 * time.Millisecond)
	}
	drainMs := time.Since(drainBegan).Milliseconds()
	time.Sleep(100 * time.Millisecond) // For what should not come: doubles.
	report("result", r.latency.into(map[string]any{
		"rate":         rate,
		"perSecond":    perSecond,
		"openMs":       openMs,
		"sent":         sent.Load(),
		"arrived":      r.arrived.Load(),
		"lost":         r.lost(),
		"gaps":         r.gaps.Load(),
		"doubles":      r.doubles.Load() + max(r.arrived.Load()-sent.Load(), 0),
		"cuts":         r.cuts.count.Load(),
		"firstCut":     r.cuts.first,
		"refused":      refused.count.Load(),
		"failed":       failed.count.Load(),
		"firstFailure": first(failed.first, refused.first),
		"drainMs":      drainMs,
	}))
	return nil
}

func systemOf(j job) (system, error) {
	switch j.Protocol {
	case "grpc":
		return openPosthorn(j)
	case "socket.io":
		return openSocketIO(j), nil
	}
	return nil, fmt.Errorf("unknown protocol: %s", j.Protocol)
}

func first(messages ...string) string {
	for _, message := range messages {
		if message != "" {
			return message
		}
	}
	return ""
}

// forAll runs work for 0 … n-1, so many at a time, and returns the first error.
func forAll(n, atOnce int, work func(i int) error) error {
	var next atomic.Int64
	var workers sync.WaitGroup
	var failed atomic.Pointer[error]
	for range atOnce {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for failed.Load() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := work(i); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		}()
	}
	workers.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}
