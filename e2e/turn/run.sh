#!/bin/sh
# Runs the tests of foreign WebRTC stacks through the relay that make has built. Needs Node with npm, openssl and Debian's python3-aiortc.
set -eu
cd "$(dirname "$0")"
refuse() {
    echo "SKIPPED: foreign WebRTC stacks, $1"
    # As root on Linux nothing may be skipped.
    if [ "$(uname -s)" = Linux ] && [ "$(id -u)" = 0 ]; then exit 1; fi
    exit 0
}
command -v npm >/dev/null || refuse "Node with npm is missing"
command -v openssl >/dev/null || refuse "openssl is missing"
/usr/bin/python3 -c 'import aiortc' 2>/dev/null || refuse "python3-aiortc is missing"
if [ ! node_modules/.package-lock.json -nt package-lock.json ]; then
    npm ci --ignore-scripts --no-audit --no-fund --silent
fi
mkdir -p ../.work
[ $# -gt 0 ] || set -- ./*.test.mjs
exec node --test --test-concurrency=1 --test-reporter=spec "$@"
