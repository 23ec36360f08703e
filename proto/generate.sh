#!/usr/bin/env bash
# Generate the typed Python of every .proto into a folder: proto/generate.sh sdk
# The toolchain lives in .venv-proto and is rebuilt when constraints/proto.txt changes.
set -euo pipefail

out=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
venv=.venv-proto

if ! cmp -s constraints/proto.txt "$venv/constraints.txt"; then
    echo "Setting up $venv (once) ..." >&2
    "${PYTHON:-python3}" -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: -r constraints/proto.txt
    cp constraints/proto.txt "$venv/constraints.txt"
fi

PATH="$PWD/$venv/bin:$PATH" "$venv/bin/python" -m grpc_tools.protoc --proto_path=proto \
    --python_out="$out" --mypy_out="quiet:$out" --grpc_python_out="$out" --mypy_grpc_out="quiet:$out" \
    proto/revocation_api/v1/*.proto
