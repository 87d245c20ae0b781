#!/bin/sh
# A cargo runner that runs the test executables of one crate and skips all others.
#
#   only.sh CRATE EXECUTABLE ARGS...
set -eu
crate=$1
shift
case ${CARGO_MANIFEST_DIR:-} in
    */"$crate") exec "$@" ;;
    *) exit 0 ;;
esac
