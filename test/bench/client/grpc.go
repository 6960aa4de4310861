package main

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

const (
	sendMethod      = "/posthorn.v1.SendService/Send"
	sendBatchMethod = "/posthorn.v1.SendService/SendBatch"
	subscribeMethod = "/posthorn.v1.StreamService/Subscribe"
	broadcastMethod = "/posthorn.v1.StreamService/Broadcast"

	listEntriesMethod = "/posthorn.v1.InboxService/ListEntries"
	getCountsMethod   = "/posthorn.v1.InboxService/GetCounts"
)

// asIs hands messages through as the bytes they are.
type asIs struct{}

func (asIs) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (asIs) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}
func (asIs) Name() string { return "proto" }

// dial opens n connections. Fixed windows: their automatic growth costs a ping for every little while of reading.
func dial(address string, n int) ([]*grpc.ClientConn, error) {
	conns := make([]*grpc.ClientConn, n)
	for i := range conns {
		conn, err := grpc.NewClient(
			"passthrough:///"+address,
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.ForceCodec(asIs{}), grpc.MaxCallRecvMsgSize(64<<20)),
			grpc.WithInitialWindowSize(1<<20),
			grpc.WithInitialConnWindowSize(4<<20),
			// With a connection for each device, buffers of the usual 32 KiB would be most of this process.
			grpc.WithReadBufferSize(8<<10),
			grpc.WithSharedWriteBuffer(true),
			grpc.WithDisableServiceConfig(),
			grpc.WithDisableRetry(),
		)
		if err != nil {
			return nil, fmt.Errorf("dial %s: %w", address, err)
		}
		conn.Connect()
		conns[i] = conn
	}
	return conns, nil
}

func withKey(ctx context.Context, apiKey string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+apiKey)
}
