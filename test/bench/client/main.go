// The load client of the benchmarks. It takes one job as a line of JSON on standard input and answers with lines of JSON
// on standard output: {"event":"open"}, {"event":"measuring"}, {"event":"second"} …, {"event":"measured"}, and at the end
// {"event":"result"} or {"event":"failed"}. Further lines may say {"do":"go"}, which a job that holds waits for,
// {"do":"stop"}, which ends measuring early, and {"do":"leave"}, which a flood that holds waits for before it closes its
// streams. It ends when standard input does, so it cannot outlive the benchmark.
//
// It is in Go, and reads and writes only the few fields it needs, because every cycle it takes is taken from the server
// that it measures on the same two cores.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"strconv"
	"sync"
	"time"
)

// job is the same type as Job in ../load.ts.
type job struct {
	Kind    string `json:"kind"`
	Address string `json:"address"`
	APIKey  string `json:"apiKey"`
	// grpc, socket.io or nchan.
	Protocol string `json:"protocol"`
	// Connections for sending, and for streams; without any of those, no stream is opened.
	Connections       int `json:"connections"`
	StreamConnections int `json:"streamConnections"`
	// Calls under way at the same time.
	Callers int `json:"callers"`
	// Users u0 … u<n-1>, or with another prefix than u.
	Users  int    `json:"users"`
	Prefix string `json:"prefix"`
	// Notifications a SendBatch carries, and how many may be sent and not arrived.
	Batch  int `json:"batch"`
	Window int `json:"window"`
	// A posthorn.v1.Priority; 0 takes the type's.
	Priority int `json:"priority"`
	// Sends, or reads, that are due in a second.
	PerSecond float64 `json:"perSecond"`
	// flood: notifications; broadcast: messages; resume: notifications each user misses; history: pages to go down.
	Count int `json:"count"`
	// Wait for {"do":"go"} when the streams are open, and in a flood for {"do":"leave"} before they are closed.
	Hold bool `json:"hold"`

	WarmupMs  int `json:"warmupMs"`
	MeasureMs int `json:"measureMs"`
	// How long the last events may take after the last send.
	DrainMs int `json:"drainMs"`

	// Closed when the benchmark says so.
	proceed, stop, leave chan struct{}
}

func (j job) warmup() time.Duration  { return time.Duration(j.WarmupMs) * time.Millisecond }
func (j job) measure() time.Duration { return time.Duration(j.MeasureMs) * time.Millisecond }
func (j job) drain() time.Duration   { return time.Duration(j.DrainMs) * time.Millisecond }

// user is the id of the n-th.
func (j job) user(n int) string {
	return first(j.Prefix, "u") + strconv.Itoa(n)
}

var kinds = map[string]func(context.Context, job) error{
	"accept":     accept,
	"end-to-end": endToEnd,
	"paced":      paced,
	"flood":      flood,
	"broadcast":  broadcast,
	"resume":     resume,
	"history":    history,
}

func main() {
	input := bufio.NewScanner(os.Stdin)
	if !input.Scan() {
		os.Exit(2)
	}
	j := job{proceed: make(chan struct{}), stop: make(chan struct{}), leave: make(chan struct{})}
	if err := json.Unmarshal(input.Bytes(), &j); err != nil {
		fail(err)
	}
	do, known := kinds[j.Kind]
	if !known {
		report("failed", map[string]any{"message": "unknown kind of job: " + j.Kind})
		os.Exit(2)
	}
	go j.obey(input)
	if err := do(context.Background(), j); err != nil {
		fail(err)
	}
}

func (j job) obey(input *bufio.Scanner) {
	saying := map[string]chan struct{}{"go": j.proceed, "stop": j.stop, "leave": j.leave}
	for input.Scan() {
		var command struct{ Do string }
		_ = json.Unmarshal(input.Bytes(), &command)
		if said := saying[command.Do]; said != nil {
			close(said)
			delete(saying, command.Do)
		}
	}
	os.Exit(0)
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
