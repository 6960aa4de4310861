package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
)

// system is what is measured: Posthorn over gRPC, the peer over Socket.IO and HTTP, or nchan over server-sent events.
type system interface {
	// open brings up every user's stream; what arrives goes to r until the process ends.
	open(ctx context.Context, r *received) error
	// send sends one notification to each of these and says which were refused, by index, with why.
	send(ctx context.Context, caller int, users []int, body string) (refused map[int]string, err error)
	// broadcast hands one message to every open stream.
	broadcast(ctx context.Context, body string) error
	// cut ends every stream without a word, and returns when none is read any more.
	cut()
	// resume opens a user's stream again from where it was cut; what was missed goes to r.
	resume(ctx context.Context, user int) error
}

func systemOf(j job) (system, error) {
	switch j.Protocol {
	case "grpc":
		return openPosthorn(j)
	case "socket.io":
		return openSocketIO(j), nil
	case "nchan":
		return openNchan(j), nil
	}
	return nil, fmt.Errorf("unknown protocol: %s", j.Protocol)
}

// Streams that are being opened at the same time: about what a load balancer lets through after a restart.
const openingAtOnce = 128

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

func first(messages ...string) string {
	for _, message := range messages {
		if message != "" {
			return message
		}
	}
	return ""
}
