#!/bin/sh
# A PostgreSQL server for one command, also on Debian without systemd.
#
#   postgres.sh run CMD...   installs Debian's PostgreSQL if needed, starts a server with its data
#                            in a temporary folder, runs CMD with the URL in CLESS_TEST_POSTGRES,
#                            stops the server and removes the folder; returns CMD's status
#
# The server listens only on a socket in that folder. Other servers of the machine stay untouched.
# If CLESS_TEST_POSTGRES is set already, CMD runs with that server.
set -eu

say() { echo "postgres: $*" >&2; }
die() { say "$*"; exit 1; }

# Debian keeps the programs off the PATH, with one folder per major version.
programs() { ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1; }

install_server() {
    [ -n "$(programs)" ] && command -v psql >/dev/null && return
    [ "$(id -u)" = 0 ] || die "PostgreSQL is not installed, and only root can install it"
    command -v apt-get >/dev/null || die "PostgreSQL is not installed, and there is no apt-get to install it"
    say "PostgreSQL is not installed: installing Debian's (it stays installed)"
    export DEBIAN_FRONTEND=noninteractive
    # Keeps the package from creating a server.
    mkdir -p /etc/postgresql-common/createcluster.d
    echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.d/cless-tests.conf
    apt-get update -qq >/dev/null
    apt-get install -y -qq --no-install-recommends postgresql >/dev/null
    rm -f /etc/postgresql-common/createcluster.d/cless-tests.conf
}

# The server refuses to run as root.
as_server() {
    if [ "$(id -u)" = 0 ]; then
        setpriv --reuid=postgres --regid=postgres --init-groups env HOME="$dir" "$@"
    else
        "$@"
    fi
}

stop() {
    status=$?
    trap - EXIT INT TERM
    as_server "$bin/pg_ctl" stop -s -m immediate -D "$dir/data" >/dev/null 2>&1 || true
    rm -rf "$dir"
    exit "$status"
}

[ "${1:-}" = run ] && [ $# -gt 1 ] || die "usage: postgres.sh run CMD..."
shift
[ -z "${CLESS_TEST_POSTGRES:-}" ] || exec "$@"
install_server
bin=$(programs)
# A short path outside TMPDIR, because a socket path is limited to 107 characters.
dir=$(mktemp -d /tmp/cless-postgres-XXXXXX)
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
[ "$(id -u)" != 0 ] || chown postgres:postgres "$dir"
chmod 711 "$dir"
as_server "$bin/initdb" -D "$dir/data" -U cless -A trust -E UTF8 --locale=C --no-sync >"$dir/initdb.log" 2>&1 ||
    { cat "$dir/initdb.log" >&2; die "initdb failed"; }
# No test is about power failures, and without fsync the tests take half as long.
as_server "$bin/pg_ctl" start -s -w -t 60 -D "$dir/data" -l "$dir/server.log" \
    -o "-c listen_addresses= -c unix_socket_directories=$dir -c max_connections=300 -c fsync=off -c full_page_writes=off" ||
    { tail -n 20 "$dir/server.log" >&2; die "the server does not start"; }
CLESS_TEST_POSTGRES="postgres://cless@localhost/postgres?host=$dir"
export CLESS_TEST_POSTGRES
"$@"
