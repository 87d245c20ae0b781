#!/bin/sh
# A Docker engine for the tests, the demo and the benches, also on Debian without systemd.
#
#   engine.sh up            uses a running engine; otherwise installs Debian's docker.io if needed,
#                           starts dockerd and leaves it running
#   engine.sh down          stops the engine that `up` started, and no other
#   engine.sh run CMD...    up, CMD, then down if this call started the engine; returns CMD's status
#
# It never stops, configures or replaces an engine that it did not start.
set -eu

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
PID_FILE=/run/cless-engine.pid
RUN_DIR=/run/cless-engine
LOG=/var/log/cless-engine.log
SOCKET=/var/run/docker.sock
DEADLINE_S=90

say() { echo "engine: $*" >&2; }
die() { say "$*"; exit 1; }

# Perl is essential in Debian; curl and the docker client are not.
responds() {
    perl -MIO::Socket::UNIX -MIO::Socket::INET -e '
        my $host = $ENV{DOCKER_HOST} || "unix://'"$SOCKET"'";
        local $SIG{ALRM} = sub { exit 1 };
        alarm 5;
        my $s = $host =~ m{^unix://(.+)} ? IO::Socket::UNIX->new(Peer => $1)
              : $host =~ m{^(?:tcp|http)://([^/]+)} ? IO::Socket::INET->new(PeerAddr => $1)
              : undef;
        exit 1 unless $s;
        print $s "GET /_ping HTTP/1.0\r\n\r\n";
        $s->flush;
        my $line = <$s> // "";
        exit($line =~ m{^HTTP/1\.\d 200} ? 0 : 1);
    ' 2>/dev/null
}

# The pid of the engine that `up` started, if it is running.
own_pid() {
    [ -s "$PID_FILE" ] || return 1
    pid=$(cat "$PID_FILE")
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ] || return 1
    echo "$pid"
}

# Tools of the isolation tests, in case the engine was installed without them.
install_network_tools() {
    if command -v ip >/dev/null && command -v iptables-save >/dev/null; then return; fi
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 0
    say "installing Debian's iproute2 and iptables (they stay installed)"
    apt-get update -qq >/dev/null
    DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends iproute2 iptables >/dev/null
}

install_engine() {
    command -v dockerd >/dev/null && return
    command -v apt-get >/dev/null || die "no Docker engine is installed, and there is no apt-get to install one"
    say "no Docker engine is installed: installing Debian's docker.io (it stays installed)"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >/dev/null
    apt-get install -y -qq --no-install-recommends docker.io iptables iproute2 cgroupfs-mount >/dev/null
}

# dockerd finds iptables on its PATH. If the kernel lacks nf_tables, the legacy variant comes first
# for this dockerd only.
choose_iptables() {
    iptables -w -t nat -L -n >/dev/null 2>&1 && return
    if iptables-legacy -w -t nat -L -n >/dev/null 2>&1; then
        say "iptables works only in legacy mode, which dockerd will use"
        mkdir -p "$RUN_DIR/bin"
        for tool in iptables ip6tables; do
            ln -sf "$(command -v $tool-legacy)" "$RUN_DIR/bin/$tool"
        done
        PATH=$RUN_DIR/bin:$PATH
        return
    fi
    say "iptables does not work here: containers will have no outgoing network"
    set_flags="--iptables=false --ip-masq=false"
}

# Whether a process is running. Its name changes from setsid to nohup to dockerd at first.
is_running() { grep -qs '^State:[[:space:]]*[^ZX]' "/proc/$1/status"; }

# $1: name of the engine; $2: its pid, if this script started it.
wait_for_engine() {
    waited=0
    until responds; do
        if [ -n "${2:-}" ] && ! is_running "$2"; then
            tail -n 20 "$LOG" >&2
            rm -f "$PID_FILE"
            die "dockerd exited at start; its log is $LOG"
        fi
        [ "$waited" -lt "$DEADLINE_S" ] || die "$1 does not respond after $DEADLINE_S s"
        sleep 1
        waited=$((waited + 1))
    done
}

start_engine() {
    [ -z "${DOCKER_HOST:-}" ] || die "DOCKER_HOST is $DOCKER_HOST, and no engine responds there"
    [ "$(id -u)" = 0 ] || die "no Docker engine responds at $SOCKET, and only root can start one"
    install_engine
    # Debian's package starts the engine itself if there is an init system.
    if [ "$(cat "/proc/$(cat /run/docker.pid 2>/dev/null)/comm" 2>/dev/null)" = dockerd ]; then
        wait_for_engine "the dockerd of the system"
        say "the system started dockerd; stop it with 'service docker stop'"
        trap - EXIT
        return
    fi
    if ! grep -q ' cgroup2\? ' /proc/mounts && command -v cgroupfs-mount >/dev/null; then
        cgroupfs-mount || true
    fi
    set_flags=
    choose_iptables
    # shellcheck disable=SC2086 # two flags or none
    setsid nohup dockerd --host "unix://$SOCKET" $set_flags >"$LOG" 2>&1 </dev/null &
    echo $! >"$PID_FILE"
    wait_for_engine "the started dockerd" $!
    say "started dockerd (pid $(cat "$PID_FILE"), log $LOG); 'sh tests/engine.sh down' stops it"
}

stop_engine() {
    pid=$(own_pid) || { say "no engine started by this script is running"; return 0; }
    kill "$pid"
    waited=0
    while [ -d "/proc/$pid" ] && [ "$waited" -lt 30 ]; do
        sleep 1
        waited=$((waited + 1))
    done
    [ -d "/proc/$pid" ] && die "dockerd (pid $pid) does not stop"
    rm -rf "$PID_FILE" "$RUN_DIR" "$LOG"
    say "stopped dockerd"
}

case ${1:-} in
    up)
        responds || start_engine
        install_network_tools
        ;;
    down)
        stop_engine
        ;;
    run)
        shift
        if ! responds; then
            # On Ctrl-C the terminal signals the command as well.
            trap stop_engine EXIT
            trap 'exit 130' INT TERM
            start_engine
        fi
        "$@"
        ;;
    *)
        die "usage: engine.sh up | down | run CMD..."
        ;;
esac
