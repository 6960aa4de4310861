package main

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
)

// posthorn is the system under test, over gRPC.
type posthorn struct {
	job     job
	sending []*grpc.ClientConn
	streams []*grpc.ClientConn
}

func openPosthorn(j job) (*posthorn, error) {
	sending, err := dial(j.Address, j.Connections)
	if err != nil {
		return nil, err
	}
	streams, err := dial(j.Address, j.StreamConnections)
	if err != nil {
		return nil, err
	}
	return &posthorn{job: j, sending: sending, streams: streams}, nil
}

func (p *posthorn) send(ctx context.Context, caller int, users []int, at time.Time) (map[int]string, error) {
	request := batchOf(users, contentAt(at))
	var response []byte
	err := p.sending[caller%len(p.sending)].Invoke(withKey(ctx, p.job.APIKey), sendBatchMethod, &request, &response)
	if err != nil {
		return nil, err
	}
	answered, refused, err := refusals(response)
	if err == nil && answered != len(users) {
		err = fmt.Errorf("%d items, %d results", len(users), answered)
	}
	return refused, err
}

// Streams that are being opened at the same time: about what a load balancer lets through after a restart.
const openingAtOnce = 128

func (p *posthorn) open(ctx context.Context, r *received) error {
	ctx = withKey(ctx, p.job.APIKey)
	return forAll(p.job.Users, openingAtOnce, func(user int) error {
		s := &userStream{conn: p.streams[user%len(p.streams)], user: user, r: r, order: order{r: r}}
		if err := s.connect(ctx); err != nil {
			return err
		}
		go s.follow(ctx)
		return nil
	})
}

// userStream is one user's stream, opened again with the last cursor when it ends. For one goroutine.
type userStream struct {
	conn   *grpc.ClientConn
	stream grpc.ClientStream
	user   int
	cursor string
	order  order
	r      *received
}

var subscribeStream = &grpc.StreamDesc{StreamName: "Subscribe", ServerStreams: true}

// connect returns when the stream has caught up.
func (s *userStream) connect(ctx context.Context) error {
	stream, err := s.conn.NewStream(ctx, subscribeStream, subscribeMethod)
	if err != nil {
		return err
	}
	request := subscription(s.user, s.cursor)
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
			return fmt.Errorf("stream of %s: %w", userID(s.user), err)
		}
		if e.kind == "caughtUp" {
			return nil
		}
	}
}

// follow reads until the process ends.
func (s *userStream) follow(ctx context.Context) {
	for {
		if _, err := s.receive(); err == nil {
			continue
		} else {
			s.r.cuts.add(1, err.Error())
		}
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
	if e.cursor != "" {
		s.cursor = e.cursor
	}
	switch e.kind {
	case "hello":
		if s.order.last == 0 {
			s.order.last = e.head
		}
	case "notification":
		if s.order.next(e.sequence) {
			s.r.notification(s.user, e.body)
		}
	}
	return e, nil
}
