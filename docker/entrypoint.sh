#!/bin/sh
# Runs a command with the password that the file PGPASSWORD_FILE holds, a secret, where libpq looks for it.
set -eu
if [ -n "${PGPASSWORD_FILE:-}" ]; then
    PGPASSWORD=$(cat "$PGPASSWORD_FILE")
    export PGPASSWORD
fi
exec "$@"
