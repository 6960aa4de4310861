package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"posthorn.dev/bench/measure"
)

const pageSize = 50

// reader shows a user what there is.
type reader interface {
	// page returns how many entries it has, and the token of the next page.
	page(ctx context.Context, user int, token string) (next string, entries int, err error)
	counts(ctx context.Context, user int) error
}

// A place is where a page begins.
type place struct {
	user  int
	token string
}

// Inboxes that are walked through beforehand, so that pages at every depth are known.
const walked = 64

// history reads pages of random inboxes at random depths, and counts, in turn, each when it is due.
func history(ctx context.Context, j job) error {
	target, err := systemOf(j)
	if err != nil {
		return err
	}
	from, is := target.(reader)
	if !is {
		return fmt.Errorf("nothing can be read over %s", j.Protocol)
	}
	var lock sync.Mutex
	var places []place
	err = forAll(min(walked, j.Users), j.Callers, func(n int) error {
		at := place{user: n * j.Users / min(walked, j.Users)}
		for range j.Count {
			next, entries, err := from.page(ctx, at.user, at.token)
			if err != nil {
				return err
			}
			if entries == pageSize {
				lock.Lock()
				places = append(places, at)
				lock.Unlock()
			}
			if next == "" || entries < pageSize {
				break
			}
			at.token = next
		}
		return nil
	})
	if err == nil && len(places) == 0 {
		err = errors.New("no inbox has a page")
	}
	if err != nil {
		return err
	}
	report("open", nil)

	var phase atomic.Int32
	var done atomic.Int64
	var pages, counts measure.Histogram
	var failed mistakes
	var readers sync.WaitGroup
	read := func(n int, at place, due time.Time) {
		defer readers.Done()
		measured := phase.Load() == measuring
		took, err := &counts, error(nil)
		if n%2 == 0 {
			took = &pages
			_, _, err = from.page(ctx, at.user, at.token)
		} else {
			err = from.counts(ctx, at.user)
		}
		if err != nil {
			failed.add(1, err.Error())
			return
		}
		done.Add(1)
		if measured {
			took.Record(time.Since(due))
		}
	}
	readers.Add(1)
	go func() {
		defer readers.Done()
		random := rand.New(rand.NewPCG(5, 0))
		measure.Schedule{Start: time.Now(), PerSecond: j.PerSecond}.Run(func(n int, due time.Time) bool {
			if phase.Load() == over {
				return false
			}
			readers.Add(1)
			go read(n, places[random.IntN(len(places))], due)
			return true
		})
	}()
	rate, perSecond := phases(j, &phase, &done)
	readers.Wait()
	report("result", pages.Into(map[string]any{
		"rate":         rate,
		"perSecond":    perSecond,
		"countsP50Ms":  counts.Quantile(0.5),
		"countsP99Ms":  counts.Quantile(0.99),
		"pages":        len(places),
		"failed":       failed.count.Load(),
		"firstFailure": failed.first,
	}))
	return nil
}

func (p *posthorn) page(ctx context.Context, user int, token string) (next string, entries int, err error) {
	request := listEntries(p.job.user(user), token)
	var response []byte
	err = p.sending[user%len(p.sending)].Invoke(withKey(ctx, p.job.APIKey), listEntriesMethod, &request, &response)
	if err != nil {
		return "", 0, err
	}
	return parsePage(response)
}

func (p *posthorn) counts(ctx context.Context, user int) error {
	request := countsOf(p.job.user(user))
	var response []byte
	return p.sending[user%len(p.sending)].Invoke(withKey(ctx, p.job.APIKey), getCountsMethod, &request, &response)
}
