package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// The fields of posthorn.v1 that a load client writes and reads, by their numbers in proto/. Unknown ones are passed over.

func appendMessage(to []byte, field protowire.Number, body []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(to, field, protowire.BytesType), body)
}

func appendText(to []byte, field protowire.Number, text string) []byte {
	return protowire.AppendString(protowire.AppendTag(to, field, protowire.BytesType), text)
}

// data is Content.data, a google.protobuf.Struct: what a small real notification carries.
var data = func() (fields []byte) {
	for _, field := range [][2]string{{"order", "12345"}, {"status", "shipped"}} {
		value := appendText(nil, 3, field[1])
		fields = appendMessage(fields, 1, appendMessage(appendText(nil, 1, field[0]), 2, value))
	}
	return fields
}()

const title = "Your order"

// bodyAt begins with the time of sending, from which the receiver tells how long it took.
func bodyAt(at time.Time) string {
	return strconv.FormatInt(at.UnixNano(), 36) + " The order has been shipped and is on its way to you."
}

func sentAt(body string) (time.Time, bool) {
	stamp, _, _ := strings.Cut(body, " ")
	nanos, err := strconv.ParseInt(stamp, 36, 64)
	return time.Unix(0, nanos), err == nil
}

// contentAt is posthorn.v1.Content.
func contentAt(at time.Time) []byte {
	return appendMessage(appendText(appendText(nil, 1, title), 2, bodyAt(at)), 3, data)
}

func userID(n int) string { return "u" + strconv.Itoa(n) }

// appendSend is posthorn.v1.SendRequest.
func appendSend(to []byte, user int, content []byte) []byte {
	return appendMessage(appendMessage(to, 1, appendText(nil, 1, userID(user))), 3, content)
}

// batchOf is posthorn.v1.SendBatchRequest.
func batchOf(users []int, content []byte) []byte {
	batch := make([]byte, 0, len(users)*(len(content)+32))
	item := make([]byte, 0, len(content)+32)
	for _, user := range users {
		item = appendSend(item[:0], user, content)
		batch = appendMessage(batch, 1, item)
	}
	return batch
}

// subscription is posthorn.v1.SubscribeRequest.
func subscription(user int, cursor string) []byte {
	request := appendText(nil, 1, userID(user))
	if cursor != "" {
		request = appendText(request, 2, cursor)
	}
	return appendText(request, 3, "bench")
}

// fields calls visit with every field of a message: length-delimited ones with their bytes, varints with their number.
func fields(message []byte, visit func(field protowire.Number, bytes []byte, number uint64)) error {
	for len(message) > 0 {
		field, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return protowire.ParseError(n)
		}
		message = message[n:]
		switch kind {
		case protowire.BytesType:
			value, n := protowire.ConsumeBytes(message)
			if n < 0 {
				return protowire.ParseError(n)
			}
			visit(field, value, 0)
			message = message[n:]
		case protowire.VarintType:
			value, n := protowire.ConsumeVarint(message)
			if n < 0 {
				return protowire.ParseError(n)
			}
			visit(field, nil, value)
			message = message[n:]
		default:
			n := protowire.ConsumeFieldValue(field, kind, message)
			if n < 0 {
				return protowire.ParseError(n)
			}
			message = message[n:]
		}
	}
	return nil
}

// refusals reads posthorn.v1.SendBatchResponse: which items were refused, by index, and how many were answered.
func refusals(response []byte) (answered int, refused map[int]string, err error) {
	err = fields(response, func(field protowire.Number, result []byte, _ uint64) {
		if field != 1 {
			return
		}
		_ = fields(result, func(field protowire.Number, problem []byte, _ uint64) {
			if field != 2 {
				return
			}
			if refused == nil {
				refused = map[int]string{}
			}
			var reason uint64
			var message string
			_ = fields(problem, func(field protowire.Number, bytes []byte, number uint64) {
				switch field {
				case 2:
					reason = number
				case 3:
					message = string(bytes)
				}
			})
			refused[answered] = fmt.Sprintf("item refused (reason %d): %s", reason, message)
		})
		answered++
	})
	return answered, refused, err
}

// event is what a posthorn.v1.SubscribeResponse says to a load client.
type event struct {
	// hello, notification, caughtUp, reconnect, reset; empty for others.
	kind string
	// Of the notification.
	sequence int64
	body     string
	// Of hello: the newest sequence.
	head   int64
	cursor string
}

func parseEvent(message []byte) (e event, err error) {
	err = fields(message, func(field protowire.Number, bytes []byte, _ uint64) {
		switch field {
		case 1:
			e.kind = "hello"
			_ = fields(bytes, func(field protowire.Number, _ []byte, number uint64) {
				if field == 5 {
					e.head = int64(number)
				}
			})
		case 2:
			e.kind = "notification"
			_ = fields(bytes, func(field protowire.Number, bytes []byte, _ uint64) {
				switch field {
				case 1:
					e.entry(bytes)
				case 2:
					e.cursor = string(bytes)
				}
			})
		case 3, 7:
			e.kind = map[protowire.Number]string{3: "caughtUp", 7: "heartbeat"}[field]
			e.first(bytes, 1)
		case 8:
			e.kind = "reset"
			e.first(bytes, 2)
		case 9:
			e.kind = "reconnect"
			e.first(bytes, 3)
		}
	})
	return e, err
}

// first takes the cursor from the field of this number.
func (e *event) first(message []byte, number protowire.Number) {
	_ = fields(message, func(field protowire.Number, bytes []byte, _ uint64) {
		if field == number && bytes != nil {
			e.cursor = string(bytes)
		}
	})
}

// entry reads posthorn.v1.InboxEntry.
func (e *event) entry(message []byte) {
	_ = fields(message, func(field protowire.Number, bytes []byte, number uint64) {
		switch field {
		case 2:
			e.sequence = int64(number)
		case 6:
			_ = fields(bytes, func(field protowire.Number, bytes []byte, _ uint64) {
				if field == 2 {
					e.body = string(bytes)
				}
			})
		}
	})
}
