#!/usr/bin/env bash
# Builds the image of deploy/Containerfile with buildah, without torch's CUDA packages, and tries it with podman: read-only,
# as nobody special, one answer corrected (scripts/image_check.py). Needs root and Debian's buildah, podman, debootstrap
# and runc, which it names where they are missing. Not for every test run: it takes minutes and 8 GB of disk.
# ENGINE=elsewhere leaves out torch and the weights, and tries the gateway with an engine of .venv.
# BASE names a base image with Python 3.11 to 3.13. Without it one is made of Debian's packages by debootstrap (SUITE, MIRROR):
# a machine that reaches no registry of images then needs none. IMAGE names the result, KEEP=1 keeps the storage of buildah.
# STORAGE names where images lie. DRIVER=vfs stores them where overlays cannot be mounted, with 2 GB for each instruction.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
work=$PWD/.build/image
elsewhere=() tag=cpu
[ "${ENGINE:-}" != elsewhere ] || elsewhere=(--without-torch) tag=gateway
image=${IMAGE:-localhost/aligner-proxy:$tag}
suite=${SUITE:-bookworm}
storage=(--root "${STORAGE:-$work/storage}" --runroot "${STORAGE:-$work/storage}.run" --storage-driver "${DRIVER:-overlay}")
[ "${TORCH:-}" != cpu ] || export PIP_EXTRA_INDEX_URL="${PIP_EXTRA_INDEX_URL:+$PIP_EXTRA_INDEX_URL }https://download.pytorch.org/whl/cpu"
build=(buildah "${storage[@]}")
say() { printf 'image: %s\n' "$*" >&2; }

missing=()
for program in buildah podman debootstrap runc; do command -v "$program" >/dev/null || missing+=("$program"); done
[ ${#missing[@]} = 0 ] || {
    say "needs ${missing[*]}: apt-get install --no-install-recommends ${missing[*]}"
    exit 1
}
mkdir -p "$work"

# The mirror that apt uses here, so that no address stands in this file.
mirror() { apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -n 1; }

make_base() {
    local root=$work/base container
    say "making a base of Debian $suite"
    rm -rf "$root"
    debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv,python-is-python3 "$suite" "$root" \
        "${MIRROR:-$(mirror)}" >"$work/debootstrap.log"
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
    container=$("${build[@]}" from scratch)
    "${build[@]}" copy --quiet "$container" "$root" / >/dev/null
    "${build[@]}" commit --quiet --rm "$container" "$1" >/dev/null
    rm -rf "$root"
}
base=${BASE:-localhost/aligner-proxy-base:$suite}
[ -n "${BASE:-}" ] || "${build[@]}" inspect "$base" >/dev/null 2>&1 || make_base "$base"
version=$("${build[@]}" run --isolation chroot "$("${build[@]}" from --name aligner-proxy-asked "$base")" -- \
    python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
"${build[@]}" rm aligner-proxy-asked >/dev/null

lock=$("$python" -m scripts.image_context "$work" "$version")
[ ${#elsewhere[@]} = 0 ] || lock=
say "Python $version, torch of ${lock:-nowhere}"
# pip in the build finds packages as pip here does: its settings, and each file or folder that they name.
volumes=(--volume "$work/pip.conf:/etc/pip.conf:ro")
while read -r path; do volumes+=(--volume "$path:$path:ro"); done <"$work/mounts"

sed "s|^FROM [^ ]*|FROM $base|" deploy/Containerfile >"$work/Containerfile"
say "building $image"
"${build[@]}" build --layers --isolation chroot --network host --format docker "${volumes[@]}" --build-arg "TORCH_LOCK=$lock" \
    --tag "$image" --file "$work/Containerfile" "$work/context" >"$work/build.log" 2>&1 || {
    tail -n 30 "$work/build.log" >&2
    exit 1
}
"$python" -m scripts.image_check "$image" "${elsewhere[@]}" --podman "podman ${storage[*]} --cgroup-manager cgroupfs --runtime runc"
[ "${KEEP:-}" = 1 ] || rm -rf "$work/context" "$work"/storage{,.run}
