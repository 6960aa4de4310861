package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
)

// poster talks HTTP to a peer over connections that stay open.
type poster struct {
	base string
	http *http.Client
}

func newPoster(j job) poster {
	transport := &http.Transport{MaxIdleConns: 512, MaxIdleConnsPerHost: 512, DisableCompression: true}
	return poster{base: "http://" + j.Address, http: &http.Client{Transport: transport}}
}

// do returns the body of an answer of the 200s.
func (p poster) do(ctx context.Context, method, path, contentType string, body []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, p.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("content-type", contentType)
	answer, err := p.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode/100 != 2 {
		err = fmt.Errorf("HTTP %d: %s", answer.StatusCode, text)
	}
	return text, err
}
