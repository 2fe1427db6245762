#!/usr/bin/env bash
# Set up .venv and run the tests; arguments go to pytest: bash scripts/test.sh -k loader
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "$0")/.."
bash scripts/setup.sh --dev
.venv/bin/python -m ruff check
exec .venv/bin/python -m pytest tests "$@"
