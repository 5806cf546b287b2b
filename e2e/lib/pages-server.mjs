// An app's own web server: serves one folder, on an origin that is not the call server's.
// Arguments: host, port (0: any), folder.

import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';

const [host, port, dir] = process.argv.slice(2);
const types = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript; charset=utf-8' };

const server = http.createServer((req, res) => {
  const name = path.basename(new URL(req.url, 'http://x').pathname);
  fs.readFile(path.join(dir, name), (error, body) => {
    res.writeHead(error ? 404 : 200, {
      'content-type': types[path.extname(name)] ?? 'text/plain',
      'cache-control': 'no-store',
    });
    res.end(error ? '' : body);
  });
});
server.listen(Number(port), host, () => console.log(`pages on port ${server.address().port}`));
process.on('SIGTERM', () => {
  server.close();
  server.closeAllConnections();
});
