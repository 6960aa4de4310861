package main

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// retries counts connections that had to be tried again.
type retries struct{ atomic.Int64 }

// retriesEach is how often a connection may have to be opened again, on the average, until the server is taken for gone.
const retriesEach = 3

// until tries again as Socket.IO's own client does, and in kind Posthorn's: after a second, and twice as long each time up to
// five, each half more or less, so that what was reset because all came at once does not come at once again.
func (r *retries) until(ctx context.Context, users int, connect func() error) error {
	for wait := time.Second; ; wait = min(2*wait, 5*time.Second) {
		err := connect()
		if err == nil || r.Add(1) > int64(retriesEach*users) {
			return err
		}
		select {
		case <-time.After(time.Duration(float64(wait) * (0.5 + rand.Float64()))):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
