#!/usr/bin/env bash
# Puts what is deployed (what .gcloudignore leaves) into build/source.zip, the same bytes for the same files, so that
# Terraform deploys when something has changed and only then.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

mkdir -p build
gcloud meta list-files-for-upload . | LC_ALL=C sort | python3 -c '
import pathlib, sys, zipfile

with zipfile.ZipFile("build/source.zip", "w", zipfile.ZIP_DEFLATED) as archive:
    for name in sys.stdin.read().splitlines():
        entry = zipfile.ZipInfo(name)  # of 1980, whenever it was changed
        entry.external_attr = 0o644 << 16
        archive.writestr(entry, pathlib.Path(name).read_bytes(), zipfile.ZIP_DEFLATED)
'
printf 'build/source.zip: %s bytes\n' "$(wc -c <build/source.zip)"
