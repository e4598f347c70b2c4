#!/usr/bin/env bash
# What tests/test_compose_up.py needs, on Debian and Ubuntu as root: podman with an older runtime and network plugins that
# work without systemd, its init program, and podman-compose in an environment of its own. A few minutes and some 300 MB,
# once.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! { command -v podman && command -v runc && command -v catatonit && command -v ip; } >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update --quiet
    apt-get install --yes --quiet --no-install-recommends \
        podman runc catatonit golang-github-containernetworking-plugin-dnsname dnsmasq-base iptables iproute2
fi
if [ ! -x .venv/containers/bin/podman-compose ]; then
    "${PYTHON:-python3}" -m venv .venv/containers
    .venv/containers/bin/python -m pip --disable-pip-version-check --quiet install podman-compose==1.6.0
fi
