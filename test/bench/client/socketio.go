package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"

	"golang.org/x/net/websocket"
)

// socketIO is the peer of ../peers/socket-stack: batches by HTTP, events by Socket.IO 4 over WebSocket (Engine.IO 4).
type socketIO struct {
	job     job
	api     poster
	r       *received
	sockets []*websocket.Conn
	// The last id each user's socket has brought: the peer's way to resume.
	last    []string
	reading sync.WaitGroup
	isCut   bool
	retries retries
}

func openSocketIO(j job) *socketIO {
	return &socketIO{job: j, api: newPoster(j), sockets: make([]*websocket.Conn, j.Users), last: make([]string, j.Users)}
}

type peerItem struct {
	UserID string            `json:"userId"`
	Title  string            `json:"title"`
	Body   string            `json:"body"`
	Data   map[string]string `json:"data"`
	// BullMQ's: 1 is most urgent, 0 before all and cheapest.
	Priority int `json:"priority"`
}

func (s *socketIO) send(ctx context.Context, _ int, users []int, body string) (map[int]string, error) {
	items := make([]peerItem, len(users))
	priority := map[int]int{1: 4, 2: 3, 3: 2, 4: 1}[s.job.Priority]
	for i, user := range users {
		data := map[string]string{"order": "12345", "status": "shipped"}
		items[i] = peerItem{s.job.user(user), title, body, data, priority}
	}
	return nil, s.post(ctx, "/notifications", map[string]any{"items": items})
}

func (s *socketIO) broadcast(ctx context.Context, body string) error {
	return s.post(ctx, "/broadcast", map[string]any{"title": title, "body": body})
}

func (s *socketIO) post(ctx context.Context, path string, message any) error {
	request, err := json.Marshal(message)
	if err != nil {
		return err
	}
	_, err = s.api.do(ctx, "POST", path, "application/json", request)
	return err
}

func (s *socketIO) open(ctx context.Context, r *received) error {
	s.r = r
	return forAll(s.job.Users, openingAtOnce, func(user int) error { return s.resume(ctx, user) })
}

func (s *socketIO) resume(ctx context.Context, user int) error {
	var conn *websocket.Conn
	err := s.retries.until(ctx, s.job.Users, func() (err error) {
		conn, err = s.connect(user)
		return err
	})
	if err != nil {
		return fmt.Errorf("socket of %s: %w", s.job.user(user), err)
	}
	s.sockets[user] = conn
	s.reading.Add(1)
	go s.follow(conn, user)
	return nil
}

func (s *socketIO) cut() {
	s.isCut = true
	for _, conn := range s.sockets {
		_ = conn.Close()
	}
	s.reading.Wait()
	s.isCut = false
}

func (s *socketIO) connect(user int) (*websocket.Conn, error) {
	url := "ws://" + s.job.Address + "/socket.io/?EIO=4&transport=websocket"
	conn, err := websocket.Dial(url, "", "http://"+s.job.Address)
	if err != nil {
		return nil, err
	}
	if _, err := packet(conn, "0"); err != nil {
		return nil, err
	}
	hello, err := json.Marshal(map[string]string{"userId": s.job.user(user), "after": first(s.last[user], "0")})
	if err != nil {
		return nil, err
	}
	if err := websocket.Message.Send(conn, "40"+string(hello)); err != nil {
		return nil, err
	}
	_, err = packet(conn, "40")
	return conn, err
}

// packet reads up to one that begins with prefix and returns the rest of it. Pings are answered.
func packet(conn *websocket.Conn, prefix string) (string, error) {
	for {
		var text string
		if err := websocket.Message.Receive(conn, &text); err != nil {
			return "", err
		}
		if text == "2" {
			if err := websocket.Message.Send(conn, "3"); err != nil {
				return "", err
			}
			continue
		}
		if rest, is := strings.CutPrefix(text, prefix); is {
			return rest, nil
		}
	}
}

// follow reads `42["notification",{"id":"…",…,"body":"<stamp> …"}]` until the socket ends.
func (s *socketIO) follow(conn *websocket.Conn, user int) {
	defer s.reading.Done()
	for {
		text, err := packet(conn, `42["notification",`)
		if err != nil {
			if !s.isCut {
				s.r.cuts.add(1, err.Error())
			}
			return
		}
		if _, id, has := strings.Cut(text, `"id":"`); has {
			s.last[user], _, _ = strings.Cut(id, `"`)
		}
		_, body, _ := strings.Cut(text, `"body":"`)
		s.r.notification(user, body)
	}
}

// page reads a page of a user's notifications by its offset, and how many are unread, as such an application does.
func (s *socketIO) page(ctx context.Context, user int, token string) (next string, entries int, err error) {
	offset := 0
	_, _ = fmt.Sscan(token, &offset)
	path := fmt.Sprintf("/notifications?userId=%s&limit=%d&offset=%d", s.job.user(user), pageSize, offset)
	answer, err := s.api.do(ctx, "GET", path, "application/json", nil)
	if err != nil {
		return "", 0, err
	}
	var rows []json.RawMessage
	if err := json.Unmarshal(answer, &rows); err != nil {
		return "", 0, err
	}
	return fmt.Sprint(offset + len(rows)), len(rows), nil
}

func (s *socketIO) counts(ctx context.Context, user int) error {
	_, err := s.api.do(ctx, "GET", "/unread?userId="+s.job.user(user), "application/json", nil)
	return err
}
