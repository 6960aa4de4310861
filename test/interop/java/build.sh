#!/bin/sh
# Makes this directory a Java program with a client generated from Posthorn's contract: protoc and the gRPC plugin come
# with the other artifacts, see pom.xml.
set -eu

mvn --batch-mode --quiet --no-transfer-progress process-classes
