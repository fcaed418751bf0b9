# One image for every role: `notifier api`, `notifier worker email`, `notifier demo`, …
#
# The tag says which Python; BASE_DIGEST pins its bytes: --build-arg BASE_DIGEST=@sha256:…
# docs/decisions/0013-one-image-from-locks.md says why no digest stands here.
ARG BASE=docker.io/library/python:3.11-slim-bookworm
ARG BASE_DIGEST=

FROM ${BASE}${BASE_DIGEST} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build

COPY requirements-image.lock .
RUN python3 -m venv tools && \
    tools/bin/python -m pip install -q --require-hashes -r requirements-image.lock

# Without isolation: what is built from source is built with the tools that are locked above.
COPY requirements-service.lock .
RUN tools/bin/python -m pip wheel -q --no-build-isolation --require-hashes -w wheels -r requirements-service.lock

COPY pyproject.toml README.md LICENSE ./
COPY notifier notifier
COPY channels /srv/notifier/channels
COPY templates /srv/notifier/templates
# Compiled here, since nothing can be written where it runs.
RUN tools/bin/python -m pip wheel -q --no-build-isolation --no-deps -w wheels . && \
    python3 -m venv --without-pip /opt/notifier && \
    tools/bin/python -m pip --python /opt/notifier/bin/python install -q --no-index --find-links wheels \
        "notifier-service[service,otel]" && \
    python3 -m compileall -q /srv/notifier/channels && \
    tools/bin/cyclonedx-py environment /opt/notifier/bin/python --pyproject pyproject.toml \
        --mc-type application --output-reproducible --output-file /srv/notifier/sbom.cdx.json


FROM ${BASE}${BASE_DIGEST}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="notifier" \
      org.opencontainers.image.description="Event-driven notifications by e-mail, push and inbox" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

COPY --from=build /opt/notifier /opt/notifier
COPY --from=build /srv/notifier /srv/notifier

# `channels` is not in the wheel, so the folder it lies in is on the path.
ENV PATH=/opt/notifier/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/srv/notifier \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NOTIFIER_TEMPLATES=/srv/notifier/templates
WORKDIR /srv/notifier
USER 10001:10001
EXPOSE 8080 8081
ENTRYPOINT ["notifier"]
CMD ["--help"]
