# Shortcuts; every recipe is a command that can be typed without just.

# What runs before a merge.
check:
    .ci/run lint unit deny

# Everything, as the merge does it.
ci:
    .ci/run

# The sample plant through the embedded parts, at sixty times real time.
demo:
    cargo run --release -- demo

# The longer tests, against real clients and a real S3 server.
full:
    .ci/run clients full

# Gateway, service and store killed at random, a thousand times.
chaos kills="1000":
    cargo build --release --locked
    tests/chaos/run --kills {{kills}} --release

# Side-by-side benchmarks into docs/benchmarks.md.
bench *cases:
    cargo build --release --locked
    benches/run {{cases}}

# Everything that is given away: wheel, tarball, image, package, sums; see the head of dist/build.
dist *parts:
    dist/build {{parts}}

# The image, as CI builds and runs it.
image:
    .ci/run clients release image
