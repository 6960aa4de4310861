// A client of Posthorn in Go, with nothing but grpc-go and code generated from proto/ (build.sh).
//
//	./build.sh && POSTHORN_API_KEY=... ./client
//
// Tells what it learns in one JSON object a line, and ends when ada is sent "The end".
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"log"
	mrand "math/rand/v2"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	posthornv1 "example.com/client/gen/posthorn/v1"
)

var (
	address = cmp.Or(os.Getenv("POSTHORN_ADDRESS"), "127.0.0.1:50051")
	apiKey  = os.Getenv("POSTHORN_API_KEY")
	user    = cmp.Or(os.Getenv("POSTHORN_USER"), "ada")
)

func main() {
	conn, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// A connection that died without a word is noticed after 30 s; without this, never.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
	)
	check(err)
	defer conn.Close()

	ctx := bearer(context.Background(), apiKey)
	sender := posthornv1.NewSendServiceClient(conn)
	admin := posthornv1.NewAdminServiceClient(conn)
	check(checkHealth(ctx, conn))
	check(sendTwice(ctx, sender))
	check(sendSomethingWrong(ctx, sender))
	check(listAll(ctx, sender))
	// Tokens are made where the API key is, in your service; the user's device gets only the token.
	token, err := admin.CreateUserToken(ctx, &posthornv1.CreateUserTokenRequest{UserId: user})
	check(err)
	check(callUntilLimited(ctx, admin))
	streams := posthornv1.NewStreamServiceClient(conn)
	check(follow(bearer(context.Background(), token.GetToken()), streams, func(arrived *posthornv1.NotificationArrived) bool {
		entry := arrived.GetEntry()
		title := entry.GetContent().GetTitle()
		tell("arrived", facts{"sequence": entry.GetSequence(), "title": title, "replayed": arrived.GetReplayed()})
		return title != "The end"
	}))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func checkHealth(ctx context.Context, conn *grpc.ClientConn) error {
	request := &grpc_health_v1.HealthCheckRequest{Service: "posthorn.v1.SendService"}
	response, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, request)
	if err != nil {
		return err
	}
	tell("health", facts{"status": response.GetStatus().String()})
	return nil
}

func sendTwice(ctx context.Context, sender posthornv1.SendServiceClient) error {
	request := &posthornv1.SendRequest{
		To:             &posthornv1.Recipients{UserIds: []string{user}},
		Content:        &posthornv1.Content{Title: "Your order is on its way", Url: "/orders/42"},
		IdempotencyKey: "order-42-shipped-" + user, // the same for every try, whatever becomes of it
	}
	for _, fact := range []string{"sent", "repeated"} {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		response, err := sender.Send(ctx, request)
		cancel()
		if err != nil {
			return err
		}
		var ids []string
		for _, result := range response.GetResults() {
			ids = append(ids, result.GetNotificationId())
		}
		tell(fact, facts{"ids": ids})
	}
	return nil
}

func sendSomethingWrong(ctx context.Context, sender posthornv1.SendServiceClient) error {
	_, err := sender.Send(ctx, &posthornv1.SendRequest{
		To:      &posthornv1.Recipients{UserIds: []string{"ada lovelace"}},
		Content: &posthornv1.Content{Title: "Hello"},
	})
	fields := map[string]string{}
	for _, violation := range findDetail[*errdetails.BadRequest](err).GetFieldViolations() {
		fields[violation.GetField()] = violation.GetDescription()
	}
	reason := findDetail[*errdetails.ErrorInfo](err).GetReason()
	tell("refused", facts{"code": codeName(err), "reason": reason, "fields": fields})
	return nil
}

func listAll(ctx context.Context, sender posthornv1.SendServiceClient) error {
	reader := "reader-" + rand.Text()
	items := make([]*posthornv1.SendRequest, 25)
	for i := range items {
		items[i] = &posthornv1.SendRequest{
			To:      &posthornv1.Recipients{UserIds: []string{reader}},
			Content: &posthornv1.Content{Title: "One of many"},
		}
	}
	batch, err := sender.SendBatch(ctx, &posthornv1.SendBatchRequest{Items: items})
	if err != nil {
		return err
	}
	var sent, listed []string
	for _, result := range batch.GetResults() {
		sent = append(sent, result.GetResponse().GetResults()[0].GetNotificationId())
	}
	request := &posthornv1.ListNotificationsRequest{
		PageSize: 10,
		Filter:   &posthornv1.NotificationFilter{UserId: reader},
	}
	for page := 1; ; page++ {
		response, err := sender.ListNotifications(ctx, request)
		if err != nil {
			return err
		}
		for _, notification := range response.GetNotifications() {
			listed = append(listed, notification.GetId())
		}
		if request.PageToken = response.GetNextPageToken(); request.PageToken == "" {
			tell("listed", facts{"pages": page, "sent": sent, "ids": listed})
			return nil
		}
	}
}

func callUntilLimited(ctx context.Context, admin posthornv1.AdminServiceClient) error {
	for {
		_, err := admin.WhoAmI(ctx, &posthornv1.WhoAmIRequest{})
		if err == nil {
			continue
		}
		if status.Code(err) != codes.ResourceExhausted {
			return err
		}
		delay := findDetail[*errdetails.RetryInfo](err).GetRetryDelay().AsDuration()
		reason := findDetail[*errdetails.ErrorInfo](err).GetReason()
		tell("limited", facts{"reason": reason, "retryDelayMs": float64(delay) / float64(time.Millisecond)})
		time.Sleep(delay)
		if _, err := admin.WhoAmI(ctx, &posthornv1.WhoAmIRequest{}); err != nil {
			return err
		}
		tell("allowed again", nil)
		return nil
	}
}

// follow calls handle with a user's notifications from now on: each once and in order, over as many connections as it
// takes, until handle answers false.
func follow(ctx context.Context, streams posthornv1.StreamServiceClient, handle func(*posthornv1.NotificationArrived) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for cursor := ""; ; {
		delay := time.Duration(mrand.Int64N(int64(time.Second))) // so that not all come back at once
		stream, err := streams.Subscribe(ctx, &posthornv1.SubscribeRequest{Cursor: cursor})
		for err == nil {
			var response *posthornv1.SubscribeResponse
			if response, err = stream.Recv(); err != nil {
				break
			}
			// Whichever event has a cursor; more kinds of events will come.
			cursor = cmp.Or(response.GetNotification().GetCursor(), response.GetCaughtUp().GetCursor(),
				response.GetHeartbeat().GetCursor(), response.GetReset_().GetCursor(), response.GetReconnect().GetCursor(), cursor)
			switch event := response.GetEvent().(type) {
			case *posthornv1.SubscribeResponse_Notification:
				if !handle(event.Notification) {
					return nil
				}
			case *posthornv1.SubscribeResponse_CaughtUp:
				tell("caught up", nil)
			case *posthornv1.SubscribeResponse_Reset_:
				tell("reset", nil) // more was missed than is replayed: read the inbox again
			case *posthornv1.SubscribeResponse_Reconnect:
				delay = event.Reconnect.GetAfter().AsDuration()
			}
		}
		if !errors.Is(err, io.EOF) {
			if !retryable(err) {
				return err
			}
			tell("cut", facts{"code": codeName(err)})
		}
		time.Sleep(delay)
	}
}

// retryable says whether the same call may succeed later: repeat it, a send with the same idempotency key.
func retryable(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Canceled:
		return true
	}
	return false
}

func bearer(ctx context.Context, credential string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+credential)
}

// findDetail finds the detail of this kind in an error; nil, which has every getter, where it has none.
func findDetail[Kind any](err error) (found Kind) {
	for _, detail := range status.Convert(err).Details() {
		if detail, is := detail.(Kind); is {
			return detail
		}
	}
	return found
}

// codeName is the name of a status code in every language, such as INVALID_ARGUMENT.
func codeName(err error) string {
	return code.Code(status.Code(err)).String()
}

type facts map[string]any

func tell(fact string, what facts) {
	line := facts{"fact": fact}
	for name, value := range what {
		line[name] = value
	}
	json.NewEncoder(os.Stdout).Encode(line)
}
