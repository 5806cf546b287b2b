#!/bin/sh
# Makes dist/ of the npm package: what the server serves, and CommonJS beside it. Needs Go, like build.sh.
set -eu
cd "$(dirname "$0")"
rm -rf dist
mkdir dist
cp ../LICENSE .
cp ../web/dist/knowledgetalk.* dist/
cp types/knowledgetalk.d.ts dist/knowledgetalk.d.cts
# There is no address of its own to take the server's from: an app says it.
"${GO:-go}" tool esbuild src/index.ts --bundle --minify --format=cjs --target=es2021 --charset=utf8 --legal-comments=none \
    '--external:*/knowledgetalk.polling.mjs' --define:import.meta.url=undefined --log-level=warning --tsconfig=tsconfig.json \
    --outfile=dist/knowledgetalk.cjs
