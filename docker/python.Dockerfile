# The embeddb command, for workers and for the demo. Build from the root of the repository:
#   docker build --file docker/python.Dockerfile --tag embeddb:0.1.0 .
ARG PYTHON=3.13.15

FROM python:${PYTHON}-slim-trixie AS build
# What the encoders need: text, words, image, audio, history, remote. "demo" brings a model along.
ARG EXTRAS=cli,metrics,remote,text
# Another index beside PyPI, whose torch brings gigabytes of CUDA; PyTorch's own has builds for the CPU alone.
ARG PIP_EXTRA_INDEX_URL=
WORKDIR /source
RUN python -m venv /opt/embeddb
ENV PATH=/opt/embeddb/bin:$PATH
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY alembic alembic
COPY embeddb embeddb
RUN pip install --no-cache-dir --constraint constraints.txt ".[${EXTRAS}]" 'psycopg[binary]'

FROM python:${PYTHON}-slim-trixie
RUN useradd --create-home --uid 10001 embeddb && install --directory --owner=embeddb /home/embeddb/.cache
COPY --from=build /opt/embeddb /opt/embeddb
COPY --chmod=755 docker/entrypoint.sh docker/demo.sh /usr/local/bin/
ENV PATH=/opt/embeddb/bin:$PATH PYTHONUNBUFFERED=1
USER 10001
WORKDIR /home/embeddb
ENTRYPOINT ["entrypoint.sh"]
CMD ["embeddb", "worker", "--log-format", "json", "--metrics-port", "9000"]
