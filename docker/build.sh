#!/bin/sh
# Build the images: docker/build.sh [TARGET...], by default services and train; dispatcher is the third.
#   ENGINE        docker, podman or buildah [the first of these that works here]
#   PYTHON_IMAGE  another base image; PYTHON_DIGEST: @sha256:..., which of its builds
#   BUILD_FLAGS   further flags of the engine
# Each image is tagged with the version of pyproject.toml, and without a tag.
set -eu
cd "$(dirname "$0")/.."

if [ -z "${ENGINE:-}" ]; then
    for ENGINE in docker podman buildah none; do
        "$ENGINE" info >/dev/null 2>&1 && break
    done
    [ "$ENGINE" != none ] || { echo "error: no docker, podman or buildah works here; name one with ENGINE=" >&2; exit 2; }
fi
VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
REVISION=$(git rev-parse HEAD 2>/dev/null || true)
[ -z "$(git status --porcelain 2>/dev/null)" ] || REVISION="$REVISION-changed"

# OCI's image format has no health checks, and what is not Docker writes that one unless it is told otherwise.
case "$ENGINE" in
docker) build="docker build" ;;
*) build="$ENGINE build --format docker" ;;
esac
[ $# -gt 0 ] || set -- services train
for target; do
    set -- --file docker/Dockerfile --target "$target" --build-arg VERSION="$VERSION" --build-arg REVISION="$REVISION"
    [ -z "${PYTHON_IMAGE:-}" ] || set -- "$@" --build-arg PYTHON_IMAGE="$PYTHON_IMAGE"
    [ -z "${PYTHON_DIGEST:-}" ] || set -- "$@" --build-arg PYTHON_DIGEST="$PYTHON_DIGEST"
    # shellcheck disable=SC2086 # several flags in one variable
    $build ${BUILD_FLAGS:-} "$@" --tag "zsbir-$target:$VERSION" --tag "zsbir-$target" .
done
