#!/bin/sh
# Runs the tests of the Socket.IO transport against the server that make has built. Needs Node with npm, no browser.
set -eu
cd "$(dirname "$0")"
if ! command -v npm >/dev/null; then
    echo "SKIPPED: Socket.IO clients, Node with npm is missing"
    # As root on Linux nothing may be skipped.
    if [ "$(uname -s)" = Linux ] && [ "$(id -u)" = 0 ]; then exit 1; fi
    exit 0
fi
if [ ! node_modules/.package-lock.json -nt package-lock.json ]; then
    npm ci --ignore-scripts --no-audit --no-fund --silent
fi
mkdir -p ../.work
[ $# -gt 0 ] || set -- ./*.test.mjs
exec node --test --test-concurrency=1 --test-reporter=spec "$@"
