# The container image: one static binary on an empty file system, as user 10001, state in /var/lib/lookoutd.
#
#   docker build -t lookoutd .                        compiles from source; needs a registry for RUST_IMAGE
#   docker build -t lookoutd --target prebuilt DIR    takes DIR/dist/{lookoutd,ca-certificates.crt,state/}
#   docker run -v lookoutd:/var/lib/lookoutd -v "$PWD/gateway.toml:/lookoutd.toml:ro" -e LOOKOUTD_CONFIG=/lookoutd.toml lookoutd
#
# `prebuilt` comes first so that builders which run every stage up to the target stop there.

ARG RUST_IMAGE=docker.io/library/rust:1-bookworm

# What both images are, whichever way the binary came.
FROM scratch AS base
LABEL org.opencontainers.image.title="lookoutd" \
      org.opencontainers.image.description="Sensor windows to S3 on a wall-clock cadence, inference results back" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/ \
    HOME=/var/lib/lookoutd \
    LOOKOUTD__DATA_DIR=/var/lib/lookoutd \
    MALLOC_ARENA_MAX=1 \
    TMPDIR=/var/lib/lookoutd \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
USER 10001:10001
# The binary is its own probe: it reads ledger and lock in the data directory. It must judge by the daemon's configuration,
# so that is named in LOOKOUTD_CONFIG, which both see, and not in an argument of `run`.
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s --retries=3 CMD ["/lookoutd", "healthcheck"]
# Exec form: lookoutd is process 1 and gets SIGTERM itself; its drain takes 2 s of Docker's 10.
ENTRYPOINT ["/lookoutd"]
CMD ["run"]

# From a static binary built outside: BINARY, CA_CERTIFICATES and STATE are paths in the build context,
# STATE an empty directory that gives the volume its owner.
FROM base AS prebuilt
ARG BINARY=dist/lookoutd
ARG CA_CERTIFICATES=dist/ca-certificates.crt
ARG STATE=dist/state
COPY --chown=0:0 ${CA_CERTIFICATES} /etc/ssl/certs/ca-certificates.crt
COPY --chown=10001:10001 ${STATE}/ /var/lib/lookoutd/
COPY --chown=0:0 ${BINARY} /lookoutd
VOLUME /var/lib/lookoutd

# From source. --target keeps RUSTFLAGS away from build scripts and procedural macros, which cannot be static.
FROM ${RUST_IMAGE} AS build
WORKDIR /src
COPY . .
RUN target="$(rustc -vV | sed -n 's/^host: //p')" \
 && RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --bin lookoutd --target "$target" \
 && install -D -m 755 "target/$target/release/lookoutd" /dist/lookoutd \
 && install -D -m 644 /etc/ssl/certs/ca-certificates.crt /dist/ca-certificates.crt \
 && mkdir -p /dist/state

FROM base AS image
COPY --from=build --chown=0:0 /dist/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build --chown=10001:10001 /dist/state/ /var/lib/lookoutd/
COPY --from=build --chown=0:0 /dist/lookoutd /lookoutd
VOLUME /var/lib/lookoutd
