"""`python -m bench.llama_server GGUF PORT SLOTS TOKENS`: llama.cpp's server with its n-gram drafts; TOKENS per slot."""

from __future__ import annotations

import os
import signal
import sys

import xllamacpp


def main(path: str, port: str, slots: str, tokens: str) -> None:
    """Serve until SIGTERM or SIGINT."""
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.port = int(port)
    params.n_parallel = int(slots)
    params.n_ctx = int(slots) * int(tokens)
    params.cpuparams.n_threads = os.cpu_count() or 1
    params.speculative.types = [xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE]
    # The defaults (match 12 tokens, draft 48) find nothing in answers of this length.
    params.speculative.ngram_simple.size_n = 3
    params.speculative.ngram_simple.size_m = 16
    server = xllamacpp.Server(params)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    del server


if __name__ == "__main__":
    main(*sys.argv[1:])
