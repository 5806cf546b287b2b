#!/bin/sh
# Runs the whole-system tests against the server that make has built. Arguments: test files (default: all) or options of node --test.
# What cannot run on this machine is named; as root on Linux that is a failure.
set -eu
cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/sbin:/sbin"

refuse() {
    echo "SKIPPED: browser tests, $1"
    # As root on Linux setup.sh could have put everything there.
    if [ "$(uname -s)" = Linux ] && [ "$(id -u)" = 0 ]; then exit 1; fi
    exit 0
}
command -v node >/dev/null || refuse "Node is missing"
[ -d e2e/node_modules/playwright-core ] || refuse "e2e/node_modules is missing (npm ci --ignore-scripts in e2e/)"
[ -x "${CHROMIUM:-/usr/bin/chromium}" ] || refuse "Chromium is missing"

if [ "$(uname -s)" = Linux ]; then "${GO:-go}" build -trimpath -o bin/netlab ./e2e/netlab; fi
mkdir -p e2e/.work
cd e2e
[ $# -gt 0 ] || set -- ./*.test.mjs
# One file at a time: browsers fill the cores they get.
exec node --test --test-concurrency=1 --test-reporter=spec "$@"
