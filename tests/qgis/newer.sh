#!/usr/bin/env bash
# The tests of the plugin in a newer QGIS: that of Debian 13 (3.40, Python 3.13), in a folder of its
# own made by debootstrap. As root, by hand; some 2.5 GB and ten minutes.
#
#   tests/qgis/newer.sh FOLDER [WHAT PYTEST TAKES ...]
#
# geoseg is installed in there, too, with Debian's Python and the tests' packages. Where pip takes
# its own from a folder of this machine: PIP_MOUNT is seen in there, PIP_CONFIG_FILE copied.
set -euo pipefail
root=$(realpath -m "${1:?a folder, which is made}")
shift
repository=$(cd "$(dirname "$0")/../.." && pwd)
suite=${SUITE:-trixie}
if [ ! -e "$root/.made" ]; then
  debootstrap --variant=minbase "$suite" "$root" "${MIRROR:-http://deb.debian.org/debian}"
  cp /etc/resolv.conf "$root/etc/resolv.conf"
  chroot "$root" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
    qgis python3-qgis qgis-providers python3-venv procps
  touch "$root/.made"
fi
mkdir -p "$root/geoseg" ${PIP_MOUNT:+"$root$PIP_MOUNT"}
mounted=()
finish() { for folder in "${mounted[@]}"; do umount "$folder"; done; }
trap finish EXIT
# A copy: tests make files beside modules.
git -C "$repository" archive HEAD | tar -x -C "$root/geoseg"
mount --bind /proc "$root/proc" && mounted+=("$root/proc")
mount --bind /dev "$root/dev" && mounted+=("$root/dev")
if [ -n "${PIP_MOUNT:-}" ]; then
  mount --bind "$PIP_MOUNT" "$root$PIP_MOUNT" && mounted+=("$root$PIP_MOUNT")
fi
[ -z "${PIP_CONFIG_FILE:-}" ] || cp "$PIP_CONFIG_FILE" "$root/etc/pip.conf"
env -u PIP_CONFIG_FILE -u PIP_CERT chroot "$root" bash -euo pipefail -c '
  cd /geoseg
  [ -e /venv ] || python3 -m venv /venv
  /venv/bin/pip install --quiet --disable-pip-version-check -e ".[test-light]"
  qgis_process --version || qgis_process.bin --version
  /venv/bin/python -m pytest -p no:xdist tests/qgis "$@"
' -- "$@"
