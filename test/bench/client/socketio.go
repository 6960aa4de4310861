package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"golang.org/x/net/websocket"
)

// socketIO is the peer of ../peers/socket-stack: batches by HTTP, events by Socket.IO 4 over WebSocket (Engine.IO 4).
type socketIO struct {
	job  job
	http *http.Client
}

func openSocketIO(j job) *socketIO {
	return &socketIO{job: j, http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: j.Callers}}}
}

type peerItem struct {
	UserID string            `json:"userId"`
	Title  string            `json:"title"`
	Body   string            `json:"body"`
	Data   map[string]string `json:"data"`
}

func (s *socketIO) send(ctx context.Context, _ int, users []int, at time.Time) (map[int]string, error) {
	body := bodyAt(at)
	items := make([]peerItem, len(users))
	for i, user := range users {
		items[i] = peerItem{userID(user), title, body, map[string]string{"order": "12345", "status": "shipped"}}
	}
	request, err := json.Marshal(map[string]any{"items": items})
	if err != nil {
		return nil, err
	}
	answer, err := s.http.Post("http://"+s.job.Address+"/notifications", "application/json", bytes.NewReader(request))
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusAccepted {
		err = fmt.Errorf("HTTP %d: %s", answer.StatusCode, text)
	}
	return nil, err
}

func (s *socketIO) open(ctx context.Context, r *received) error {
	return forAll(s.job.Users, openingAtOnce, func(user int) error {
		conn, err := s.connect(user)
		if err != nil {
			return fmt.Errorf("socket of %s: %w", userID(user), err)
		}
		go follow(conn, user, r)
		return nil
	})
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
	if err := websocket.Message.Send(conn, `40{"userId":"`+userID(user)+`"}`); err != nil {
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

// follow reads `42["notification",{…,"body":"<stamp> …"}]` until the socket ends; what is missed then is lost.
func follow(conn *websocket.Conn, user int, r *received) {
	for {
		text, err := packet(conn, `42["notification",`)
		if err != nil {
			r.cuts.add(1, err.Error())
			return
		}
		_, body, _ := strings.Cut(text, `"body":"`)
		r.notification(user, body)
	}
}
