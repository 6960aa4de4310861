package main

import (
	"context"
	"sync/atomic"
	"time"

	"posthorn.dev/bench/measure"
)

// resume has every stream open and brings each user a first notification, cuts all, sends each user so many more, and when
// the benchmark says that they are in their inboxes, opens all streams again at once. A client is complete when it has
// everything it missed.
func resume(ctx context.Context, j job) error {
	r := newReceived(j.Users, func(time.Time) bool { return false })
	var complete atomic.Int64
	var times measure.Histogram
	var began time.Time
	r.heard = func(_ int, count int64) {
		if count == int64(1+j.Count) {
			times.Record(time.Since(began))
			complete.Add(1)
		}
	}
	target, openMs, err := opened(ctx, j, r)
	if err != nil {
		return err
	}
	var sent atomic.Int64
	var refused, failed mistakes
	toEach := func(times int) error {
		all := j.Users * times
		return forAll((all+j.Batch-1)/j.Batch, j.Callers, func(n int) error {
			users := make([]int, min(j.Batch, all-n*j.Batch))
			for i := range users {
				users[i] = (n*j.Batch + i) % j.Users
			}
			problems, err := target.send(ctx, n, users, bodyAt(time.Unix(0, 0)))
			if err == nil {
				sent.Add(r.took(users, problems, &refused))
			}
			return err
		})
	}
	if err := toEach(1); err != nil {
		return err
	}
	waitUntil(j.drain(), func() bool { return r.arrived.Load() >= sent.Load() })
	target.cut()
	if err := toEach(j.Count); err != nil {
		return err
	}
	report("accepted", map[string]any{"count": sent.Load()})
	<-j.proceed
	report("measuring", nil)
	began = time.Now()
	// All at once: nobody lets them through one by one when the network is back.
	err = forAll(j.Users, j.Users, func(user int) error { return target.resume(ctx, user) })
	if err != nil {
		return err
	}
	waitUntil(j.drain(), func() bool { return complete.Load() >= int64(j.Users) })
	report("measured", map[string]any{"count": complete.Load() * int64(j.Count)})
	result := r.into(map[string]any{
		"openMs":       openMs,
		"complete":     complete.Load(),
		"refused":      refused.count.Load(),
		"failed":       failed.count.Load(),
		"firstFailure": first(failed.first, refused.first),
	}, sent.Load())
	report("result", times.Into(result))
	return nil
}
