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
run() { # AT_A_TIME FILE...
    at_a_time=$1
    shift
    node --test --test-concurrency="$at_a_time" --test-reporter=spec "$@"
}
if [ $# -gt 0 ]; then run 1 "$@"; exit; fi
# Tests in a network of their own look at which path media take, and a browser that starves
# changes it: they run alone. The others wait for much of their time, so two share the machine.
alone=$(grep -lE "lib/(homes|lab)\.mjs" ./*.test.mjs)
together=$(grep -LE "lib/(homes|lab)\.mjs" ./*.test.mjs)
failed=0
run 2 $together || failed=1
run 1 $alone || failed=1
exit $failed
