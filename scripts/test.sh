#!/usr/bin/env bash
# Set up .venv, check the code and run the tests; --all also runs the slow ones.
# Other arguments go to pytest: bash scripts/test.sh -k loader; -n 0 runs them in a single process
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "$0")/.."
if [ "${1-}" = --all ]; then
    shift
    set -- -m '' "$@"  # instead of pyproject.toml's -m 'not slow'
fi
bash scripts/setup.sh --dev
.venv/bin/python -m ruff check
# Not --dist loadfile: if MXNet brings a worker down, pytest-xdist 3.8 then waits for ever (its issue 1323).
exec .venv/bin/python -m pytest tests -n 2 --dist worksteal "$@"
