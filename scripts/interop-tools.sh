#!/usr/bin/env bash
# Installs the tools that the interop tests talk to, as far as this machine can have them, and prints the names of
# those that are there now, comma-separated, on stdout. `npm test` needs none of them.
set -euo pipefail
cd "$(dirname "$0")/.."

# Debian packages: binary -> package.
declare -A packages=([skopeo]=skopeo [umoci]=umoci [docker-registry]=docker-registry [chromium]=chromium)

# Go modules: binary -> package@version. Built without cgo, so that they run anywhere.
declare -A modules=(
  [crane]=github.com/google/go-containerregistry/cmd/crane@v0.22.1
  [regctl]=github.com/regclient/regclient/cmd/regctl@v0.11.7
  [registry]=github.com/distribution/distribution/v3/cmd/registry@v3.1.2
  [oras]=oras.land/oras/cmd/oras@v1.3.0
  [zot]=zotregistry.dev/zot/v2/cmd/zot@v2.1.10
)

say() { printf '[interop-tools] %s\n' "$*" >&2; }

gobin="${GOBIN:-${GOPATH:-$HOME/go}/bin}"
export PATH="$PATH:$gobin"

missing=()
for tool in "${!packages[@]}"; do
  command -v "$tool" >/dev/null || missing+=("${packages[$tool]}")
done
if [ ${#missing[@]} -gt 0 ]; then
  if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    say "installing Debian packages: ${missing[*]}"
    apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
  else
    say "not installing ${missing[*]}: that takes apt-get and root"
  fi
fi

if command -v go >/dev/null; then
  for tool in "${!modules[@]}"; do
    command -v "$tool" >/dev/null && continue
    say "building ${modules[$tool]}"
    args=()
    [ "$tool" = zot ] && args=(-tags minimal)
    # Not every module is to be had everywhere: the tests for a tool that is not there are pending.
    CGO_ENABLED=0 go install "${args[@]}" "${modules[$tool]}" >&2 || say "$tool cannot be installed here"
  done
  if ! command -v oras-go-interop >/dev/null; then
    say 'building the program around oras-go'
    mkdir -p "$gobin"
    (cd packages/cache/test/interop/oras-go && CGO_ENABLED=0 go build -o "$gobin/oras-go-interop" . >&2) ||
      say 'oras-go-interop cannot be built here'
  fi
else
  say 'no Go here: crane, regctl, distribution, oras and zot are not installed'
fi

present=()
for tool in "${!packages[@]}" "${!modules[@]}" oras-go-interop; do
  command -v "$tool" >/dev/null && present+=("$tool")
done
(
  IFS=,
  printf '%s\n' "${present[*]}"
)
