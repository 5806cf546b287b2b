#!/bin/sh
# Runs the whole-system tests against the server that make has built. What cannot run on this
# machine is named; as root on Linux that is a failure.
#
#   sh e2e/run.sh                    all files, one at a time: browsers fill the cores they get
#   sh e2e/run.sh call.test.mjs …    these files, or options of node --test
#   sh e2e/run.sh busy               all but those that mostly wait
#   sh e2e/run.sh waiting            for timeouts of the protocol and for reconnects; two at a time
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
[ -d e2e/node_modules/playwright-core ] ||
    refuse "e2e/node_modules is missing (npm ci --ignore-scripts in e2e/)"
for browser in ${CHROMIUM:-/usr/bin/chromium /usr/bin/chromium-headless-shell}; do
    [ -x "$browser" ] || refuse "$browser is missing"
done

# Files that mostly wait need no network lab.
if [ "$(uname -s)" = Linux ] && [ "${1:-}" != waiting ]; then
    "${GO:-go}" build -trimpath -o bin/netlab ./e2e/netlab
fi
mkdir -p e2e/.work
cd e2e
at_a_time=1
waiting="./full.test.mjs ./malformed.test.mjs ./polling.test.mjs ./resume.test.mjs ./return.test.mjs"
case "${1:-./*.test.mjs}" in
busy)
    set --
    for file in ./*.test.mjs; do
        case " $waiting " in *" $file "*) ;; *) set -- "$@" "$file" ;; esac
    done
    ;;
waiting)
    # shellcheck disable=SC2086 # a list of names
    set -- $waiting
    at_a_time=2
    ;;
*) [ $# -gt 0 ] || set -- ./*.test.mjs ;;
esac
exec node --test --test-concurrency="$at_a_time" --test-reporter=spec "$@"
