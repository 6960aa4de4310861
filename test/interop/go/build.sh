#!/bin/sh
# Makes this directory a Go program with a client generated from Posthorn's contract. buf comes from npm, from
# `go install github.com/bufbuild/buf/cmd/buf@latest` or from your package manager; protoc does as well.
set -eu

buf generate
go build -o client .
