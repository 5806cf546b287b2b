#!/bin/sh
# Builds the browser SDK with nothing but Go. Usage: sdk/build.sh [folder, default web/dist]
set -eu
root=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
out=${1:-$root/web/dist}
mkdir -p "$out"
out=$(CDPATH= cd -- "$out" && pwd)
cd "$root"

# Source maps name their sources relative to where they are written: always write beside web/dist, so that every build is the same.
work=web/.build-$$
trap 'rm -rf "$root/$work"' EXIT
mkdir "$work"

esbuild() {
    "${GO:-go}" tool esbuild "$@" --bundle --minify --target=es2021 --charset=utf8 --legal-comments=none \
        --sourcemap=linked --sources-content=true --log-level=warning --tsconfig=sdk/tsconfig.json
}
# Names that only the SDK itself knows are shortened. test/names.test.ts holds that nobody else knows one of them.
names="--mangle-props=^($(paste -sd '|' sdk/internal-names.txt))\$"
esbuild sdk/src/script.ts --format=iife "$names" --outfile="$work/knowledgetalk.min.js"
esbuild sdk/src/index.ts --format=esm "$names" '--external:*/knowledgetalk.polling.mjs' --outfile="$work/knowledgetalk.mjs"
esbuild sdk/src/knowledgetalk.polling.mts --format=esm --outfile="$work/knowledgetalk.polling.mjs"
esbuild sdk/src/socketio.ts --format=iife --outfile="$work/socket.io.min.js"
cp sdk/types/knowledgetalk.d.ts "$work/"
mv "$work"/* "$out/"
