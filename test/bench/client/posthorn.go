package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
)

// posthorn is the system under test, over gRPC.
type posthorn struct {
	job     job
	sending []*grpc.ClientConn
	streams []*grpc.ClientConn
	users   []*userStream
	isCut   atomic.Bool
	reading sync.WaitGroup
	retries retries
}

func openPosthorn(j job) (*posthorn, error) {
	sending, err := dial(j.Address, j.Connections)
	if err != nil {
		return nil, err
	}
	return &posthorn{job: j, sending: sending, users: make([]*userStream, j.Users)}, nil
}

func (p *posthorn) send(ctx context.Context, caller int, users []int, body string) (map[int]string, error) {
	conn := p.sending[caller%len(p.sending)]
	ctx = withKey(ctx, p.job.APIKey)
	var response []byte
	if len(users) == 1 {
		request := appendSend(nil, p.job.user(users[0]), contentOf(body), p.job.Priority)
		return nil, conn.Invoke(ctx, sendMethod, &request, &response)
	}
	request := batchOf(p.job, users, contentOf(body))
	if err := conn.Invoke(ctx, sendBatchMethod, &request, &response); err != nil {
		return nil, err
	}
	answered, refused, err := refusals(response)
	if err == nil && answered != len(users) {
		err = fmt.Errorf("%d items, %d results", len(users), answered)
	}
	return refused, err
}

func (p *posthorn) broadcast(ctx context.Context, body string) error {
	request := toAll(contentOf(body))
	var response []byte
	return p.sending[0].Invoke(withKey(ctx, p.job.APIKey), broadcastMethod, &request, &response)
}

func (p *posthorn) open(ctx context.Context, r *received) (err error) {
	if p.streams, err = dial(p.job.Address, p.job.StreamConnections); err != nil {
		return err
	}
	return forAll(p.job.Users, openingAtOnce, func(user int) error {
		p.users[user] = &userStream{owner: p, user: user, r: r, order: order{r: r}}
		return p.begin(ctx, user)
	})
}

func (p *posthorn) begin(ctx context.Context, user int) error {
	ctx = withKey(ctx, p.job.APIKey)
	s := p.users[user]
	if err := s.connect(ctx); err != nil {
		return err
	}
	p.reading.Add(1)
	go s.follow(ctx)
	return nil
}

func (p *posthorn) cut() {
	p.isCut.Store(true)
	for _, conn := range p.streams {
		_ = conn.Close()
	}
	p.reading.Wait()
	// Ready to be dialled again; the first stream on each does.
	p.streams, _ = dial(p.job.Address, p.job.StreamConnections)
	p.isCut.Store(false)
}

func (p *posthorn) resume(ctx context.Context, user int) error {
	return p.retries.until(ctx, p.job.Users, func() error { return p.begin(ctx, user) })
}

// userStream is one user's stream, opened again with the last cursor when it ends. For one goroutine.
type userStream struct {
	owner  *posthorn
	stream grpc.ClientStream
	user   int
	cursor string
	order  order
	r      *received
}

var subscribeStream = &grpc.StreamDesc{StreamName: "Subscribe", ServerStreams: true}

// connect returns when the stream has caught up.
func (s *userStream) connect(ctx context.Context) error {
	conn := s.owner.streams[s.user%len(s.owner.streams)]
	stream, err := conn.NewStream(ctx, subscribeStream, subscribeMethod)
	if err != nil {
		return err
	}
	request := subscription(s.owner.job.user(s.user), s.cursor)
	if err := stream.SendMsg(&request); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	s.stream = stream
	for {
		e, err := s.receive()
		if err != nil {
			return fmt.Errorf("stream of %s: %w", s.owner.job.user(s.user), err)
		}
		switch e.kind {
		case "caughtUp":
			return nil
		case "reset":
			return errors.New("a stream was told that what it missed is gone")
		}
	}
}

// follow reads until the process ends or the stream is cut on purpose.
func (s *userStream) follow(ctx context.Context) {
	defer s.owner.reading.Done()
	for {
		_, err := s.receive()
		if err == nil {
			continue
		}
		if s.owner.isCut.Load() {
			return
		}
		s.r.cuts.add(1, err.Error())
		for s.connect(ctx) != nil {
			time.Sleep(100 * time.Millisecond)
		}
	}
}

func (s *userStream) receive() (event, error) {
	var message []byte
	if err := s.stream.RecvMsg(&message); err != nil {
		return event{}, err
	}
	e, err := parseEvent(message)
	if err != nil {
		return event{}, err
	}
	switch e.kind {
	case "hello":
		if s.cursor == "" {
			s.order.last = e.head
		}
	case "notification":
		if s.order.next(e.sequence) {
			s.r.notification(s.user, e.body)
		}
	case "announcement":
		s.r.notification(s.user, e.body)
	}
	if e.cursor != "" {
		s.cursor = e.cursor
	}
	return e, nil
}
