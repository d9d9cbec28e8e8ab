#!/usr/bin/env bash
# Builds and installs the other queues that `bench scenario peers` measures. What cannot be had is said, and shown as
# missing by the benchmark.
set -uo pipefail
cd "$(dirname "$0")"
target=${CARGO_TARGET_DIR:-$PWD/../target}

for peer in effectum apalis-sqlite; do
    (cd "$peer" && ${CARGO:-cargo} build --release --locked --target-dir "$target") || echo "missing: $peer"
done

mkdir -p "$target/peers/plainjob"
cp plainjob/package.json plainjob/package-lock.json plainjob/peer.mjs "$target/peers/plainjob/"
(cd "$target/peers/plainjob" && npm ci --no-audit --no-fund) || echo "missing: plainjob"

python3 -m venv "$target/peers/persist-queue" &&
    "$target/peers/persist-queue/bin/pip" install --quiet --disable-pip-version-check \
        --requirement persist-queue/requirements.txt || echo "missing: persist-queue"
cp persist-queue/peer.py "$target/peers/persist-queue/"
