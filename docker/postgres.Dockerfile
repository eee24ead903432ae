# Postgres with pgvector and the extension embeddb. Build from the root of the repository:
#   docker build --file docker/postgres.Dockerfile --build-arg POSTGRES=17 --tag embeddb-postgres:0.1.0-pg17 .
ARG POSTGRES=18
ARG PGVECTOR=0.8.6
ARG PYTHON=3.13.15

FROM python:${PYTHON}-slim-trixie AS extension
ARG POSTGRES
WORKDIR /source
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY alembic alembic
COPY embeddb embeddb
RUN pip install --no-cache-dir --constraint constraints.txt '.[cli]' 'psycopg[binary]'
RUN mkdir /extension && embeddb schema extension --output /extension --postgres "${POSTGRES}"

FROM pgvector/pgvector:${PGVECTOR}-pg${POSTGRES}-trixie
ARG POSTGRES
COPY --from=extension /extension/ /usr/share/postgresql/${POSTGRES}/extension/
COPY --chmod=755 docker/initdb/ /docker-entrypoint-initdb.d/
# One place for every version: a volume at /var/lib/postgresql holds it.
ENV PGDATA=/var/lib/postgresql/${POSTGRES}/docker
# The user postgres, by number for those who only let numbers in that are not 0.
USER 999
# By TCP: the server that runs the first scripts listens on its socket alone.
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=5 \
    CMD ["sh", "-c", "pg_isready --quiet --host=127.0.0.1 --username=\"$POSTGRES_USER\" --dbname=\"$POSTGRES_DB\""]
