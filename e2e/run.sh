#!/bin/sh
# Runs the whole-system tests against the server that make has built. What cannot run on this
# machine is named; as root on Linux that is a failure.
#
#   sh e2e/run.sh                    all files, one at a time: browsers fill the cores they get
#   sh e2e/run.sh call.test.mjs …    these files, or options of node --test
#   sh e2e/run.sh alone              those that need the machine for themselves
#   sh e2e/run.sh waiting            those that mostly wait for timeouts; two at a time
#   sh e2e/run.sh others             the rest; two at a time
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
    "${GO:-go}" build -trimpath -o bin/threenodes ./e2e/threenodes
fi
mkdir -p e2e/.work
cd e2e
# What mostly waits, and what needs both cores: the network lab, eight browsers at a time, and what
# counts leaks, sound or rounds. Of the rest, two files at a time.
waiting="full malformed polling resume return"
alone="firefox glare lifecycle matrix mesh silence survive warm"
at_a_time=1

# names FILES: as arguments of node
names() { for name in "$@"; do printf ' ./%s.test.mjs' "$name"; done; }

# others: the names of all other files
others() {
    for file in ./*.test.mjs; do
        name=${file#./}
        name=${name%.test.mjs}
        case " $waiting $alone " in *" $name "*) ;; *) printf ' %s' "$name" ;; esac
    done
}

# shellcheck disable=SC2046,SC2086 # lists of names
case "${1:-./*.test.mjs}" in
alone) set -- $(names $alone) ;;
others)
    set -- $(names $(others))
    at_a_time=2
    ;;
waiting)
    set -- $(names $waiting)
    at_a_time=2
    ;;
*) [ $# -gt 0 ] || set -- ./*.test.mjs ;;
esac
exec node --test --test-concurrency="$at_a_time" --test-reporter=spec "$@"
