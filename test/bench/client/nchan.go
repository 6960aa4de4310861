package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
)

// nchan is a ready fan-out server: it keeps what was published for a while in memory and knows no users, decisions or
// rows. Published to by HTTP; read by server-sent events, a connection for each stream, which also see the channel `all`.
type nchan struct {
	job   job
	api   poster
	r     *received
	conns []net.Conn
	// The last event id each has seen: what nchan resumes from.
	last    []string
	reading sync.WaitGroup
	isCut   bool
}

func openNchan(j job) *nchan {
	return &nchan{job: j, api: newPoster(j), conns: make([]net.Conn, j.Users), last: make([]string, j.Users)}
}

// send publishes one after the other, as there is no publishing many.
func (n *nchan) send(ctx context.Context, _ int, users []int, body string) (map[int]string, error) {
	for _, user := range users {
		if err := n.publish(ctx, n.job.user(user), body); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

func (n *nchan) broadcast(ctx context.Context, body string) error { return n.publish(ctx, "all", body) }

func (n *nchan) publish(ctx context.Context, channel, body string) error {
	message := fmt.Sprintf(`{"title":%q,"data":{"order":"12345","status":"shipped"},"body":%q}`, title, body)
	_, err := n.api.do(ctx, "POST", "/publish?channel="+channel, "application/json", []byte(message))
	return err
}

func (n *nchan) open(ctx context.Context, r *received) error {
	n.r = r
	return forAll(n.job.Users, openingAtOnce, func(user int) error { return n.resume(ctx, user) })
}

func (n *nchan) cut() {
	n.isCut = true
	for _, conn := range n.conns {
		_ = conn.Close()
	}
	n.reading.Wait()
	n.isCut = false
}

func (n *nchan) resume(ctx context.Context, user int) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", n.job.Address)
	if err != nil {
		return err
	}
	id := ""
	if n.last[user] != "" {
		id = "Last-Event-ID: " + n.last[user] + "\r\n"
	}
	request := "GET /subscribe?user=%s HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\n%s\r\n"
	if _, err := fmt.Fprintf(conn, request, n.job.user(user), id); err != nil {
		return err
	}
	lines := bufio.NewReaderSize(conn, 1024)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return err
		}
		if strings.HasPrefix(line, "HTTP/1.1 ") && !strings.HasPrefix(line, "HTTP/1.1 200") {
			return fmt.Errorf("nchan: %s", strings.TrimSpace(line))
		}
		// It greets with a comment when the subscription stands.
		if strings.HasPrefix(line, ":") {
			break
		}
	}
	n.conns[user] = conn
	n.reading.Add(1)
	go n.follow(lines, user)
	return nil
}

func (n *nchan) follow(lines *bufio.Reader, user int) {
	defer n.reading.Done()
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			if !n.isCut {
				n.r.cuts.add(1, err.Error())
			}
			return
		}
		if id, is := strings.CutPrefix(line, "id: "); is {
			n.last[user] = strings.TrimSpace(id)
		}
		if data, is := strings.CutPrefix(line, "data: "); is {
			_, body, _ := strings.Cut(data, `"body":"`)
			n.r.notification(user, body)
		}
	}
}
