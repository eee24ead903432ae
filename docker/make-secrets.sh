#!/bin/sh
# Makes the passwords that compose.yaml hands to the containers, once. The folder is yours alone; the files in it can be
# read by the containers' users.
set -eu
folder=${1:-$(dirname "$0")/secrets}
mkdir -p "$folder"
chmod 700 "$folder"
for name in postgres_password app_password worker_password; do
    if [ ! -e "$folder/$name" ]; then
        od -An -N24 -tx1 /dev/urandom | tr -d ' \n' > "$folder/$name"
        chmod 444 "$folder/$name"
    fi
done
