package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"posthorn.dev/bench/measure"
)

// accept: callers that each send one notification after the other. Fails only when nothing works; single refusals are
// counted in the result.
func accept(ctx context.Context, j job) error {
	conns, err := dial(j.Address, j.Connections)
	if err != nil {
		return err
	}
	ctx = withKey(ctx, j.APIKey)
	var phase atomic.Int32
	var answered atomic.Int64
	var calls measure.Histogram
	var failed mistakes
	var callers sync.WaitGroup
	for i := range j.Callers {
		callers.Add(1)
		go func() {
			defer callers.Done()
			conn := conns[i%len(conns)]
			random := rand.New(rand.NewPCG(1, uint64(i)))
			for phase.Load() != over {
				began := time.Now()
				measured := phase.Load() == measuring
				request := appendSend(nil, j.user(random.IntN(j.Users)), contentOf(bodyAt(began)), j.Priority)
				var response []byte
				if err := conn.Invoke(ctx, sendMethod, &request, &response); err != nil {
					failed.add(1, err.Error())
					time.Sleep(10 * time.Millisecond)
					continue
				}
				answered.Add(1)
				if measured && phase.Load() == measuring {
					calls.Record(time.Since(began))
				}
			}
		}()
	}
	report("open", nil)
	rate, perSecond := phases(j, &phase, &answered)
	callers.Wait()
	report("result", calls.Into(map[string]any{
		"rate":         rate,
		"perSecond":    perSecond,
		"accepted":     answered.Load(),
		"failed":       failed.count.Load(),
		"firstFailure": failed.first,
	}))
	return nil
}
