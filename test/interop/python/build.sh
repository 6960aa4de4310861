#!/bin/sh
# Makes this directory a Python project with a client generated from Posthorn's contract.
set -eu
proto=${POSTHORN_PROTO:-../../../proto}

[ -d venv ] || python3 -m venv venv
venv/bin/python -m pip install --quiet -r requirements.txt

# Not google/rpc: the package googleapis-common-protos has it already.
mkdir -p gen
venv/bin/python -m grpc_tools.protoc -I "$proto" --python_out=gen --pyi_out=gen --grpc_python_out=gen \
  "$proto"/posthorn/v1/*.proto "$proto"/buf/validate/*.proto
