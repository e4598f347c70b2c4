#!/usr/bin/env bash
# What tests/browser needs, on Debian as root: the distribution's Chromium, and fonts for every script of the corpus.
# Half a minute and some 500 MB, once.
set -euo pipefail
if ! { command -v chromium && fc-list | grep -q NotoSansThai && fc-list | grep -q NotoSansCJK; } >/dev/null 2>&1; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update --quiet
    apt-get install --yes --quiet --no-install-recommends chromium fontconfig fonts-noto-core fonts-noto-cjk
fi
