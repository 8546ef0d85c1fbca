#!/usr/bin/env bash
# On a machine with an NVIDIA GPU: builds engines, runs the tests that need one, and measures the engines beside torch
# and Meta's release. Whatever is missing is left out with its reason. Results: bench/results/gpu.json, and a table.
#   bench/gpu.sh [--rounds N] [--meta-python OTHER_VENV/bin/python] [--work FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${PYTHON:-python3}" -m bench.gpu "$@"
