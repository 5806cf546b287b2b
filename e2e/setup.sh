#!/bin/sh
# Installs what the tests need and this machine lacks: the Debian packages of packages.txt (package and the command or file it brings; as
# root, on Debian) and the npm packages of sdk/ and e2e/. What it may not install it names; the tests then say what they skip. As root on
# Linux nothing may be missing, so a failed installation ends the run.
set -eu
cd "$(dirname "$0")"

# Debian starts the services that it installs, unless this file forbids it: the tests want the programs alone.
quiet_services() {
    [ ! -e /usr/sbin/policy-rc.d ] || return 0
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod +x /usr/sbin/policy-rc.d
}

missing=""
while read -r package command; do
    command -v "$command" >/dev/null 2>&1 || [ -e "$command" ] || missing="$missing $package"
done <packages.txt

if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing$missing"
        apt-get update -qq
        quiet_services
        # shellcheck disable=SC2086 # a list of names
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
    else
        echo "missing, and not installed (needs root on Debian):$missing"
    fi
fi

if command -v npm >/dev/null; then
    for dir in ../sdk . apps/vue socketio turn; do
        if [ ! "$dir/node_modules/.package-lock.json" -nt "$dir/package-lock.json" ]; then
            (cd "$dir" && npm ci --ignore-scripts --no-audit --no-fund --silent)
        fi
    done
else
    echo "missing: Node with npm; SDK types, SDK tests and browser tests are skipped"
fi
