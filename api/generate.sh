#!/usr/bin/env bash
# Writes the Go code of the .proto files in this folder. Needs protoc (Debian: protobuf-compiler) and Go, which fetches
# the plugins. The result is committed; `make generate` runs this.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
export GOBIN=$tools
go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2
go install github.com/grpc-ecosystem/grpc-gateway/v2/protoc-gen-grpc-gateway@v2.29.0
go run ./generate >"$tools/imports.pb"

module=github.com/latchkey-go/latchkey/api
# The paths say whose files these are: the registry of a program knows each path once.
mkdir -p "$tools/src/latchkey"
cp -r v3lockpb v3electionpb latchkey/v1 "$tools/src/latchkey/"
PATH=$tools:$PATH protoc --descriptor_set_in="$tools/imports.pb" -I "$tools/src" \
	--go_out=. --go_opt=module=$module \
	--go-grpc_out=. --go-grpc_opt=module=$module \
	--grpc-gateway_out=. --grpc-gateway_opt=module=$module,standalone=true,grpc_api_configuration=gateway.yaml \
	latchkey/v3lockpb/lock.proto latchkey/v3electionpb/election.proto latchkey/v1/pipe.proto

# The service's name on the wire is etcd's.
sed -i -E 's/"(\/?)latchkey\.(v3lockpb|v3electionpb)\./"\1\2./' */*_grpc.pb.go */*.pb.gw.go

# The gateway's code goes to packages of their own, so that whoever wants the messages does not get its runtime as well.
for gateway in */*.pb.gw.go; do
	package=${gateway%/*}
	mkdir -p "$package/gw"
	sed -e "s/^package $package\$/package gw/" -e "s/^Package $package is/Package gw is/" "$gateway" >"$package/gw/${gateway##*/}"
	rm "$gateway"
done
