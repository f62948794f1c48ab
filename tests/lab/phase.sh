#!/bin/bash
# Runs a command and says how long it took.
#   phase.sh NAME COMMAND...
set -uo pipefail
name=$1
shift
echo "== $name"
SECONDS=0
"$@"
status=$?
if [ $status = 0 ]; then echo "== $name: ok in $SECONDS s"; else echo "== $name: FAILED ($status) after $SECONDS s"; fi
exit $status
