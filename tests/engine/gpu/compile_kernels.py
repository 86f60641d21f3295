"""`python -m tests.engine.gpu.compile_kernels CAPABILITY...`: compiles every kernel for GPUs that are not here.

Prints, as JSON, for each kernel and capability: registers, bytes of stack (spilled registers), bytes of shared memory,
and the instructions in its longest loop.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from aligner_proxy.engine.gpu import triton_attention, triton_kernels, triton_products

TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"
POINTERS = {
    "bf16": {"residual", "weight", "out", "queries", "keys", "values", "logits", "hidden", "states", "inputs", "bias"}
    | {"query_norm", "key_norm", "book"},
    "fp32": {"parts", "split_sums", "split_weights", "cos", "sin", "scales", "caution"},
    "i32": {"query_blocks", "starts", "lengths", "table", "places", "slots", "favoured", "words", "tables", "arrivals"},
}
NUMBERS = {"epsilon": "fp32", "scale": "fp32"}


def variants() -> Iterator[tuple[str, str, dict[str, Any], dict[str, str], int, int]]:
    """Kernel, label, constants, types that differ from the usual ones, warps, and weights in a step of its loop."""
    for width, warps in ((1024, 4), (8192, 8)):
        yield "_normalise", f"{width}", {"PARTS": 8, "WIDTH": width}, {}, warps, 0
    heads = {"HEADS": 32, "KEY_HEADS": 4, "SIZE": 64, "PARTS": 8, "HAS_BIAS": True, "HAS_NORMS": True}
    yield "_rotate_and_put", "all", heads, {}, 1, 0
    for size, group in ((64, 8), (64, 3), (128, 1)):
        for rows, splits in ((16, 8), (64, 1)):
            constants = {"GROUP": group, "SIZE": size, "QUERIES": rows // group, "ROWS": rows, "KEYS": 64, "BLOCK": 16}
            constants |= {"SPLITS": splits, "HEADS": 8 * group, "EXACT": False}
            types = {} if splits > 1 else dict.fromkeys(("split_sums", "split_weights", "arrivals"), "*bf16")
            yield "_attend", f"{size}-{group}-{rows}", constants, types, 4, 0
    yield "_gate", "8", {"PARTS": 8, "COLUMNS": 512}, {}, 4, 0
    for rows in triton_products.DIVISIONS:
        constants = {"ROWS": rows, "TILE": 64, "STAGES": 3, "QUICK": True, "EXACT": False}
        yield "_multiply", f"{rows}", constants, {"out": "*fp32"}, triton_products.DIVISIONS[rows].warps, 64 * 64
    yield "_unpack", "64", {"TILE": 64}, {"book": "*fp32"}, 4, 0
    yield "_put_states", "2048", {"WIDTH": 2048}, {}, 4, 0
    yield "_choose", "4096", {"COLUMNS": 4096}, {"out": "*i32"}, 8, 0


def build(name: str, constants: dict[str, Any], types: dict[str, str], warps: int, capability: int) -> Any:
    """The compiled kernel."""
    modules = (triton_attention, triton_kernels, triton_products)
    kernel: Any = next(getattr(module, name) for module in modules if hasattr(module, name))
    usual = {pointer: f"*{kind}" for kind, names in POINTERS.items() for pointer in names} | NUMBERS
    signature: dict[str, str] = {}
    for argument in kernel.arg_names:
        signature[argument] = "constexpr" if argument in constants else types.get(argument, usual.get(argument, "i32"))
    # addresses of tensors, and the widths of matrices, are multiples of 16
    whole = [
        (number,)
        for number, (argument, kind) in enumerate(signature.items())
        if kind.startswith("*") or argument.endswith(("width", "stride", "outputs"))
    ]
    source = ASTSource(kernel, signature, constants, {number: [["tt.divisibility", 16]] for number in whole})
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})


def measure(compiled: Any, warps: int, weights: int) -> dict[str, Any]:
    """Registers, stack and shared memory; of the longest loop, all and logic instructions of a thread for a weight."""
    with TemporaryDirectory() as folder:
        file = Path(folder, "kernel.cubin")
        file.write_bytes(compiled.asm["cubin"])
        usage = subprocess.run(
            [TOOLS / "cuobjdump", "--dump-resource-usage", file], capture_output=True, text=True
        ).stdout
        code = subprocess.run([TOOLS / "nvdisasm", "-c", file], capture_output=True, text=True).stdout
    found = {name.lower(): int(re.search(rf"{name}:(\d+)", usage)[1]) for name in ("REG", "STACK")}  # type: ignore[index]
    found["shared"] = compiled.metadata.shared
    if weights:
        loop = find_longest_loop(code.splitlines())
        kinds = Counter(re.sub(r"^@!?U?P\w+\s+", "", one).split()[0].split(".")[0] for one in loop)
        logic = sum(kinds[kind] for kind in ("SHF", "PRMT", "LOP3", "IADD3", "ISETP", "SEL", "LEA", "VIADD", "PLOP3"))
        found["instructions"] = round(len(loop) * 32 * warps / weights, 2)
        found["logic"] = round(logic * 32 * warps / weights, 2)
        found["kinds"] = dict(kinds.most_common(8))
    return found


def find_longest_loop(lines: list[str]) -> list[str]:
    """The instructions between a label and the last jump back to it."""
    labels: dict[str, int] = {}
    instructions: list[str] = []
    loops: list[list[str]] = [[]]
    for line in lines:
        if label := re.match(r"\s*\.(L_x_\d+):", line):
            labels[label[1]] = len(instructions)
        elif instruction := re.search(r"/\*[0-9a-f]{4,}\*/\s+(.*?);", line):
            instructions.append(instruction[1])
            jump = re.search(r"BRA.*`\(\.(L_x_\d+)\)", instruction[1])
            if jump and jump[1] in labels:
                loops.append(instructions[labels[jump[1]] :])
    return max(loops, key=len)


def main() -> None:
    """Compile all variants for the capabilities of the command line."""
    results = {}
    for capability in map(int, sys.argv[1:]):
        for name, label, constants, types, warps, weights in variants():
            compiled = build(name, constants, types, warps, capability)
            results[f"{name[1:]} {label} sm_{capability}"] = measure(compiled, warps, weights)
    sys.stdout.write(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
