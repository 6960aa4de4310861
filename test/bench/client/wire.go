package main

import (
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

func appendNumber(to []byte, field protowire.Number, number int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(to, field, protowire.VarintType), uint64(number))
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

// contentOf is posthorn.v1.Content.
func contentOf(body string) []byte {
	return appendMessage(appendText(appendText(nil, 1, title), 2, body), 3, data)
}

// appendSend is posthorn.v1.SendRequest.
func appendSend(to []byte, user string, content []byte, priority int) []byte {
	to = appendMessage(appendMessage(to, 1, appendText(nil, 1, user)), 3, content)
	if priority == 0 {
		return to
	}
	return appendNumber(to, 5, priority)
}

// batchOf is posthorn.v1.SendBatchRequest.
func batchOf(j job, users []int, content []byte) []byte {
	batch := make([]byte, 0, len(users)*(len(content)+32))
	item := make([]byte, 0, len(content)+32)
	for _, user := range users {
		item = appendSend(item[:0], j.user(user), content, j.Priority)
		batch = appendMessage(batch, 1, item)
	}
	return batch
}

// subscription is posthorn.v1.SubscribeRequest.
func subscription(user, cursor string) []byte {
	request := appendText(nil, 1, user)
	if cursor != "" {
		request = appendText(request, 2, cursor)
	}
	return appendText(request, 3, "bench")
}

// toAll is posthorn.v1.BroadcastRequest to every stream of the tenant.
func toAll(content []byte) []byte {
	return appendMessage(appendNumber(nil, 3, 1), 5, content)
}

// listEntries is posthorn.v1.ListEntriesRequest.
func listEntries(user, token string) []byte {
	request := appendNumber(appendText(nil, 1, user), 2, pageSize)
	if token != "" {
		request = appendText(request, 3, token)
	}
	return request
}

// countsOf is posthorn.v1.GetCountsRequest.
func countsOf(user string) []byte { return appendText(nil, 1, user) }
