#!/usr/bin/env bash
# Deploys the committed state of this repository to another machine over ssh, with docker compose. See --help.
set -euo pipefail

usage='Usage: deploy/remote.sh [user@]host [folder]

Copies the last commit of this repository to the folder on the host (latchkey in the home folder, by default), builds and starts
docker compose there, waits until both services are ready, and prints their addresses. Run it again to upgrade: users and sessions
survive. If the images cannot be built, the running version stays. The files of the version before are in <folder>.previous.

The host needs ssh, tar, and Docker with Compose 2.20 or newer. Settings go into the files .env and compose.override.yml of the
folder on the host, which stay there. Options for ssh, such as a port or a key, go into ~/.ssh/config.'

fail() {
  echo "deploy/remote.sh: $1" >&2
  exit "${2:-1}"
}

case "${1:-}" in
  --help)
    echo "$usage"
    exit
    ;;
  '' | -*) fail "expected a host. $(echo "$usage" | head -1)" 2 ;;
esac
[ $# -le 2 ] || fail "too many arguments. $(echo "$usage" | head -1)" 2
host=$1
folder=${2:-latchkey}
[[ $folder =~ ^/?[A-Za-z0-9][A-Za-z0-9._/-]*$ && $folder != */ ]] ||
  fail "expected a folder of letters, digits and . _ / -, such as latchkey or /srv/latchkey; got '$folder'" 2
command -v ssh >/dev/null || fail 'ssh is not installed here'
cd "$(dirname "${BASH_SOURCE[0]}")/.."
commit=$(git rev-parse --short HEAD 2>/dev/null) || fail 'this is no git repository with a commit'
[ -z "$(git status --porcelain)" ] || echo "Uncommitted changes are left out: only the commit $commit is deployed." >&2

# Runs a script on the host, with the folder as $1. The script is read from stdin, so that nothing in it is quoted twice.
remote() {
  # shellcheck disable=SC2029 # the folder is the one on the host
  ssh "$host" "bash -s -- $folder"
}

remote <<'SCRIPT' || fail "$host cannot run it. Check with: ssh $host docker compose version"
set -eu
fail() { echo "$1" >&2; exit 1; }
command -v tar >/dev/null || fail 'tar is not installed on the host.'
command -v docker >/dev/null || fail 'Docker is not installed on the host: https://docs.docker.com/engine/install'
docker info >/dev/null 2>&1 || fail 'Docker does not run on the host, or this user may not use it (group docker).'
version=$(docker compose version --short 2>/dev/null) || fail 'The host has no Docker Compose 2: https://docs.docker.com/compose/install'
oldest=$(printf '%s\n' 2.20 "${version#v}" | sort -V | head -n 1)
[ "$oldest" = 2.20 ] || fail "Compose on the host is $version, and 2.20 or newer is needed."
rm -rf "$1.next"
mkdir -p "$1.next"
SCRIPT

echo "Copying $commit to $host:$folder ..."
# shellcheck disable=SC2029
git archive --format=tar HEAD | ssh "$host" "tar -x -C $folder.next" || fail "the copy to $host failed; nothing was changed"

echo 'Building and starting ...'
remote <<'SCRIPT' || fail "the new version on $host was not built, or did not become ready. The logs: ssh $host 'cd $folder && docker compose logs'"
set -eu
for file in .env compose.override.yml; do
  if [ -e "$1/$file" ]; then cp -p "$1/$file" "$1.next/$file"; fi
done
(cd "$1.next" && docker compose build </dev/null)
rm -rf "$1.previous"
if [ -e "$1" ]; then mv "$1" "$1.previous"; fi
mv "$1.next" "$1"
cd "$1"
# Stdin is this script, which docker must not read.
docker compose up --detach --wait --wait-timeout 300 </dev/null
ready="fetch('http://127.0.0.1:3000/ready').then(a => process.exit(a.ok ? 0 : 1), () => process.exit(1))"
for _ in $(seq 30); do
  if docker compose exec -T business node -e "$ready" </dev/null; then
    # Both mount folders of the repository, which are new ones now.
    if docker compose ps --services </dev/null | grep -qx prometheus; then docker compose restart prometheus grafana </dev/null; fi
    exit 0
  fi
  sleep 1
done
echo 'Business answers, but is not ready.' >&2
exit 1
SCRIPT

addresses=$(remote <<'SCRIPT'
set -eu
cd "$1"
docker compose port auth 3001 </dev/null
docker compose port business 3000 </dev/null
SCRIPT
)
auth=$(echo "$addresses" | sed -n 1p)
business=$(echo "$addresses" | sed -n 2p)
echo "Ready, on $host itself:
  Auth      http://$auth
  Business  http://$business
From here:  ssh -L ${auth##*:}:$auth -L ${business##*:}:$business $host
A user:     ssh -t $host 'cd $folder && docker compose exec auth node commands/latchkey.ts users add alice@example.com'
For clients, put a TLS front before them: docs/deploy.md, \"A TLS front\"."
