package main

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

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

// parsePage reads posthorn.v1.ListEntriesResponse.
func parsePage(response []byte) (next string, entries int, err error) {
	err = fields(response, func(field protowire.Number, bytes []byte, _ uint64) {
		switch field {
		case 1:
			entries++
		case 2:
			next = string(bytes)
		}
	})
	return next, entries, err
}

// event is what a posthorn.v1.SubscribeResponse says to a load client.
type event struct {
	// hello, notification, caughtUp, reconnect, reset, announcement; empty for others.
	kind string
	// Of the notification, or of the announcement.
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
		case 11:
			e.kind = "announcement"
			_ = fields(bytes, func(field protowire.Number, bytes []byte, _ uint64) {
				if field == 2 {
					e.content(bytes)
				}
			})
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
			e.content(bytes)
		}
	})
}

// content reads posthorn.v1.Content.
func (e *event) content(message []byte) {
	_ = fields(message, func(field protowire.Number, bytes []byte, _ uint64) {
		if field == 2 {
			e.body = string(bytes)
		}
	})
}
