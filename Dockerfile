# The service as an image: `make image`, or `docker build -t revocation .`.
#
# BASE is a Debian with Python >= 3.11 and its venv module; the same for both stages. Pin it by digest in your build:
#   --build-arg BASE=docker.io/library/python:3.11-slim-bookworm@sha256:...
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
COPY pyproject.toml LICENSE NOTICE README.md ./
COPY constraints/dev.txt constraints/build.txt constraints/
COPY image/install.sh image/
COPY revocation revocation
COPY sdk sdk
RUN image/install.sh

FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="revocation" \
      org.opencontainers.image.description="Takes JWTs back: commits a revocation and pushes it into every verifier." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      revocation.sbom.format="application/vnd.cyclonedx+json" \
      revocation.sbom.path="/usr/share/sbom/revocation.cdx.json"

COPY --from=build /opt/revocation /opt/revocation
COPY --from=build /usr/share/sbom /usr/share/sbom
COPY --from=build --chown=65532:65532 /var/lib/revocation /var/lib/revocation

# HTTP for probes is on, in plain text, which is said aloud: in a container its port clashes with nobody's. gRPC stays
# on loopback until somebody says who may call. The data folder is used by an embedded store only; with --redis-url
# nothing is ever written.
ENV PATH=/opt/revocation/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    XDG_STATE_HOME=/var/lib \
    REVOCATION_HTTP_LISTEN=0.0.0.0:9464 \
    REVOCATION_HTTP_INSECURE=true

USER 65532:65532
WORKDIR /var/lib/revocation
VOLUME /var/lib/revocation
EXPOSE 50051 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9464/readyz', timeout=2)"]

# Process 1 is the service itself, without a shell or an init between: SIGTERM drains it (while it still starts, ends it).
# It has one child at most, the embedded store, and waits for its end.
ENTRYPOINT ["revocation"]
CMD ["serve"]
