// The load client of the benchmarks. It takes one job as a line of JSON on standard input and answers with lines of JSON
// on standard output: {"event":"open"}, {"event":"measuring"}, {"event":"second"} …, {"event":"measured"}, and at the end
// {"event":"result"} or {"event":"failed"}. It ends when standard input does, so it cannot outlive the benchmark.
//
// It is in Go, and reads and writes only the few fields it needs, because every cycle it takes is taken from the server
// that it measures on the same two cores.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"os"
	"sync"
	"time"
)

// job is the same type as Job in ../load.ts.
type job struct {
	Kind    string `json:"kind"`
	Address string `json:"address"`
	APIKey  string `json:"apiKey"`
	// grpc or socket.io (end-to-end only).
	Protocol string `json:"protocol"`
	// Connections for sending, and for streams.
	Connections       int `json:"connections"`
	StreamConnections int `json:"streamConnections"`
	// Calls under way at the same time.
	Callers int `json:"callers"`
	// Users u0 … u<n-1>.
	Users int `json:"users"`
	// Notifications a SendBatch carries, and how many may be sent and not arrived.
	Batch  int `json:"batch"`
	Window int `json:"window"`

	WarmupMs  int `json:"warmupMs"`
	MeasureMs int `json:"measureMs"`
	// How long the last events may take after the last send.
	DrainMs int `json:"drainMs"`
}

func (j job) warmup() time.Duration  { return time.Duration(j.WarmupMs) * time.Millisecond }
func (j job) measure() time.Duration { return time.Duration(j.MeasureMs) * time.Millisecond }
func (j job) drain() time.Duration   { return time.Duration(j.DrainMs) * time.Millisecond }

func main() {
	input := bufio.NewReader(os.Stdin)
	line, err := input.ReadBytes('\n')
	if err != nil {
		os.Exit(2)
	}
	var j job
	if err := json.Unmarshal(line, &j); err != nil {
		fail(err)
	}
	go func() {
		_, _ = io.Copy(io.Discard, input)
		os.Exit(130)
	}()
	ctx := context.Background()
	switch j.Kind {
	case "accept":
		err = accept(ctx, j)
	case "end-to-end":
		err = endToEnd(ctx, j)
	default:
		report("failed", map[string]any{"message": "unknown kind of job: " + j.Kind})
		os.Exit(2)
	}
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	report("failed", map[string]any{"message": err.Error()})
	os.Exit(1)
}

var reporting sync.Mutex

func report(event string, fields map[string]any) {
	if fields == nil {
		fields = map[string]any{}
	}
	fields["event"] = event
	line, err := json.Marshal(fields)
	if err != nil {
		panic(err)
	}
	reporting.Lock()
	defer reporting.Unlock()
	_, _ = os.Stdout.Write(append(line, '\n'))
}
