# Sourced by startServer and runTests, from the project's root: installs the packages where they are missing and leaves
# in $NODE a Node that runs TypeScript as it is. Needs no more than bash and any Node with npm.

runs_typescript() {
  "$1" -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 22 || (a === 22 && b >= 19) ? 0 : 1)' 2>/dev/null
}

if [ ! -e node_modules/.package-lock.json ] || { [ "${NODE_ENV:-}" != production ] && [ package-lock.json -nt node_modules/.package-lock.json ]; }; then
  command -v npm >/dev/null || { echo "Node.js with npm is needed: https://nodejs.org" >&2; exit 1; }
  echo "Installing the packages; this happens once." >&2
  # The project's own Node comes with them, so what an older one thinks of their "engines" is no news.
  # One more try, soon: npm's own two take minutes to say that there is no network.
  npm ci --no-audit --no-fund --loglevel=error --fetch-retries=1 --fetch-retry-mintimeout=2000 >&2 || {
    echo "The packages could not be installed. That needs a network once; afterwards everything runs without." >&2
    exit 1
  }
fi

NODE=node
if ! runs_typescript "$NODE"; then
  NODE=$PWD/node_modules/.bin/node
  if ! runs_typescript "$NODE"; then
    echo "Node.js 22.19 or newer is needed (24 is best), and the one that comes with the packages is missing:" >&2
    echo "found $(node -v 2>/dev/null || echo none). Install Node.js 24, or run: npm ci --include=dev" >&2
    exit 1
  fi
fi
