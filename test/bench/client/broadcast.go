package main

import (
	"context"
	"time"
)

// broadcast hands one message after the other to all open streams; each waits for the one before to be everywhere. The
// time is from the call until a stream has it, over all streams and messages.
func broadcast(ctx context.Context, j job) error {
	r := newReceived(j.Users, func(time.Time) bool { return true })
	target, openMs, err := opened(ctx, j, r)
	if err != nil {
		return err
	}
	report("measuring", nil)
	var failed mistakes
	began := time.Now()
	for n := range j.Count {
		if err := target.broadcast(ctx, bodyAt(time.Now())); err != nil {
			failed.add(1, err.Error())
		}
		waitUntil(j.drain(), func() bool { return r.arrived.Load() >= int64((n+1)*j.Users) })
		time.Sleep(100 * time.Millisecond)
	}
	report("measured", map[string]any{"count": r.arrived.Load()})
	sent := int64(j.Count * j.Users)
	result := r.into(map[string]any{
		"rate":         float64(sent) / time.Since(began).Seconds(),
		"openMs":       openMs,
		"failed":       failed.count.Load(),
		"firstFailure": failed.first,
	}, sent)
	result["lost"] = max(sent-r.arrived.Load(), 0)
	report("result", result)
	return nil
}
