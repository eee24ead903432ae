#!/bin/sh
# Migrates the database, embeds the demo's texts and searches them; then workers may embed what others write there.
set -eu
embeddb demo --url "$EMBEDDB_URL" --no-prompt "$@"
embeddb schema grant --worker worker
