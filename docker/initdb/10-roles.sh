#!/bin/sh
# The roles of an application: app owns the database and what is in it, worker embeds. Passwords come from files.
set -eu
psql --set=ON_ERROR_STOP=1 --no-psqlrc --quiet --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" \
    --set=app="$(cat "$APP_PASSWORD_FILE")" --set=worker="$(cat "$WORKER_PASSWORD_FILE")" <<'SQL'
CREATE ROLE app LOGIN PASSWORD :'app';
CREATE ROLE worker LOGIN PASSWORD :'worker';
SELECT format('ALTER DATABASE %I OWNER TO app', current_database()) \gexec
SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database()) \gexec
SELECT format('GRANT CONNECT ON DATABASE %I TO worker', current_database()) \gexec
ALTER SCHEMA public OWNER TO app;
SQL
