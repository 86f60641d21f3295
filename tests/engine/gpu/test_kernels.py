"""The kernels in Triton, run by its interpreter, give what those in plain torch give."""

from __future__ import annotations

import random
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from aligner_proxy.engine.gpu import nf4
from aligner_proxy.engine.gpu.step import MAX_SEQUENCES, NO_SEQUENCE, ChoiceInput, StepInput, StepView, find_bucket
from aligner_proxy.engine.scheduling.blocks import BLOCK
from aligner_proxy.engine.scheduling.scheduler import Feed, Job
from aligner_proxy.engine.scheduling.sequence import Ask, TokenSequence
from tests.engine.gpu import plain_kernels

triton = pytest.importorskip("triton", reason="comes with torch for CUDA, and with the packages for development")
NAN = float("nan")
BF16 = torch.bfloat16


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    """The module of kernels, which tests/conftest.py has Triton interpret."""
    from aligner_proxy.engine.gpu import triton_kernels

    assert triton.knobs.runtime.interpret
    return triton_kernels


def feed(tokens: list[int], start: int, blocks: list[int], ask: Ask | None = None) -> Feed:
    """The tokens from `start` on of a sequence in these blocks."""
    work: Any = iter(())
    sequence = TokenSequence(ids=tokens, blocks=blocks)
    return Feed(Job("-", work, print, sequence=sequence, ask=ask), start, len(tokens))


def step_of(new_tokens: list[int], contexts: list[int], heads: int, key_heads: int) -> tuple[StepView, int]:
    """A step in which sequences with so many tokens in all feed their last ones, and its slots, in random places."""
    counts = [-(-length // BLOCK) for length in contexts]
    places = random.sample(range(sum(counts) + 5), sum(counts))
    feeds = [
        feed([7] * length, length - new, [places.pop() for _ in range(count)])
        for new, length, count in zip(new_tokens, contexts, counts, strict=True)
    ]
    step_input = StepInput(max(contexts) + 40, heads, key_heads, (sum(counts) + 5) * BLOCK, torch.device("cpu"))
    rows, _ = step_input.fill(feeds)
    return step_input.view(rows), (sum(counts) + 6) * BLOCK


def caches(step: StepView, slots: int, heads: int, size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Keys and values with numbers where sequences have tokens, and NaN everywhere else."""
    stores = torch.full((2, heads, slots, size), NAN, dtype=dtype)
    for blocks, length in zip(step.table.tolist(), step.lengths.tolist(), strict=True):
        for place in range(length):
            stores[:, :, blocks[place // BLOCK] * BLOCK + place % BLOCK] = torch.randn(2, heads, size).to(dtype)
    return stores[0], stores[1]


def furthest(one: Tensor, other: Tensor) -> float:
    return float((one.float() - other.float()).abs().max())


STEPS = [
    ([1], [70]),
    ([1, 1, 1, 1], [1, 2, 3, 90]),
    ([5, 17, 1], [9, 40, 17]),
    ([40, 3], [40, 100]),
    ([33, 4], [33, 200]),
    ([200], [200]),
    ([100, 1, 28], [130, 64, 28]),
]


@pytest.mark.covering("contexts", "heads size")
@pytest.mark.parametrize(("new", "contexts"), STEPS)
@pytest.mark.parametrize(("heads", "key_heads", "size"), [(2, 2, 64), (6, 2, 64), (8, 1, 128)])
def test_attention(
    kernels: ModuleType, new: list[int], contexts: list[int], heads: int, key_heads: int, size: int
) -> None:
    random.seed(sum(contexts))
    torch.manual_seed(sum(contexts))
    step, slots = step_of(new, contexts, heads, key_heads)
    keys, values = caches(step, slots, key_heads, size, torch.float32)
    queries = torch.randn(step.rows, heads, size)
    got = kernels.attend(queries, keys, values, step, size**-0.5)
    expected = plain_kernels.attend(queries, keys, values, step, size**-0.5)
    assert furthest(got[: sum(new)], expected[: sum(new)]) < 2e-6


def test_attention_in_sixteen_bits(kernels: ModuleType) -> None:
    step, slots = step_of([3, 1], [50, 17], 4, 1)
    keys, values = caches(step, slots, 1, 64, BF16)
    queries = torch.randn(step.rows, 4, 64).to(BF16)
    got = kernels.attend(queries, keys, values, step, 0.125)
    expected = plain_kernels.attend(queries, keys, values, step, 0.125)
    assert furthest(got[:4], expected[:4]) < 0.02


@pytest.mark.covering("count", "width", "dtype")
@pytest.mark.parametrize("count", [0, 1, 3, 8])
@pytest.mark.parametrize("width", [64, 576, 2048])
@pytest.mark.parametrize("dtype", [torch.float32, BF16])
def test_norm(kernels: ModuleType, count: int, width: int, dtype: torch.dtype) -> None:
    residual = torch.randn(5, width).to(dtype)
    parts = torch.randn(count, 5, width) if count else None
    weight = torch.rand(width).to(dtype)
    other = residual.clone()
    out = torch.full_like(residual, NAN)
    got = kernels.normalise(residual, parts, weight, 1e-5, out)
    expected = plain_kernels.normalise(other, parts, weight, 1e-5)
    assert got is out
    # the interpreter cuts numbers off where a GPU rounds them to bf16
    close = 1e-6 if dtype == torch.float32 else 0.02
    assert furthest(residual, other) <= close * float(other.abs().max())
    assert furthest(got, expected) <= close * float(expected.abs().max())


@pytest.mark.covering("biased normed", "count", "size")
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("size", [16, 64, 128])
def test_rotation_and_store(kernels: ModuleType, biased: bool, normed: bool, count: int, size: int) -> None:
    heads, key_heads = 6, 2
    step, slots = step_of([3, 1, 2], [20, 33, 2], heads, key_heads)
    width = (heads + 2 * key_heads) * size
    parts = torch.randn(count, step.rows, width)
    bias = torch.randn(width) if biased else None
    norms = (torch.rand(size), torch.rand(size), 1e-6) if normed else None
    turns = (torch.randn(90, size // 2), torch.randn(90, size // 2))
    results = []
    for some in (kernels, plain_kernels):
        keys, values = torch.full((2, key_heads, slots, size), NAN)
        queries = some.rotate_and_put(parts, bias, norms, turns, step, keys, values, torch.float32)
        # the slot of the padding holds any of its rows
        assert not keys[:, step.slots[-1]].isnan().any()
        keys[:, step.slots[-1]] = values[:, step.slots[-1]] = 0
        results.append((queries, keys, values))
    for got, expected in zip(*results, strict=True):
        assert torch.equal(got.isnan(), expected.isnan())
        assert furthest(got.nan_to_num(0), expected.nan_to_num(0)) < 2e-6


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("width", [128, 1000, 5632])
def test_gate(kernels: ModuleType, count: int, width: int) -> None:
    parts = torch.randn(count, 3, 2 * width)
    assert furthest(kernels.gate(parts, torch.float32), plain_kernels.gate(parts, torch.float32)) < 5e-6


def test_choice_of_tokens(kernels: ModuleType) -> None:
    torch.manual_seed(3)
    logits = torch.randn(7, 9000).to(BF16)
    logits[0, 8000] = logits[0, 50] = 9.0  # equal, in two blocks: the first counts
    logits[1, 4097] = logits[1, 4096] = 9.0
    logits[2, 5] = 8.0
    logits[2, 8999] = 8.5
    logits[3] = logits[2]
    wanted = ChoiceInput(
        torch.arange(7, dtype=torch.int32),
        torch.tensor([8000, NO_SEQUENCE, 5, 5, 0, 1, 8999], dtype=torch.int32),
        torch.tensor([0.5, 2.0, 0.5, 0.25, 0.0, 99.0, 0.0]),
    )
    got = kernels.choose(logits, wanted)
    assert got.tolist() == plain_kernels.choose(logits, wanted).tolist()
    assert got[:4].tolist() == [8000, 4096, 5, 8999]


def quantised(outputs: int, inputs: int) -> Any:
    """A layer in NF4 with nested scales, as bitsandbytes quantises it on the CPU."""
    import bitsandbytes

    torch.manual_seed(outputs + inputs)
    kinds: Any = bitsandbytes.nn
    layer = kinds.Linear4bit(inputs, outputs, bias=False, compute_dtype=BF16, quant_type="nf4", device="meta")
    weight = torch.randn(outputs, inputs).to(BF16)
    layer.weight = kinds.Params4bit(weight, requires_grad=False, quant_type="nf4").to("cpu")
    return layer


def dequantised(layer: Any) -> Tensor:
    from bitsandbytes.functional import dequantize_4bit

    weight: Tensor = dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(BF16)
    return weight


@pytest.mark.covering("inputs")
@pytest.mark.parametrize(("outputs", "inputs"), [(64, 64), (192, 576), (576, 576), (1536, 576), (64, 1536)])
def test_weights_are_packed_and_unpacked_bit_by_bit(kernels: ModuleType, outputs: int, inputs: int) -> None:
    layer = quantised(outputs, inputs)
    assert nf4.can_pack(layer)
    packed = nf4.pack([layer, layer])
    numbers = plain_kernels.order_numbers(packed.words)
    assert torch.equal(nf4.order_words(numbers), packed.words)
    expected = dequantised(layer)
    assert torch.equal(plain_kernels.unpack(packed.select(outputs, 2 * outputs)), expected)
    # the interpreter cuts numbers off where a GPU rounds them to bf16
    assert ((kernels.unpack(packed)[:outputs] - expected).abs() <= expected.abs() / 128).all()


def test_what_does_not_divide_into_tiles_is_not_packed() -> None:
    assert not nf4.can_pack(quantised(96, 64))
    assert not nf4.can_pack(torch.nn.Linear(64, 64, bias=False))


def exact_product(sample: Tensor, packed: nf4.PackedWeights) -> Tensor:
    """In fp64, with scales that are not rounded."""
    values = packed.coarse_book.double()[plain_kernels.order_numbers(packed.words).int()]
    scales = packed.scales.transpose(1, 2).reshape(packed.outputs, -1).double().repeat_interleave(nf4.TILE, dim=1)
    return sample.double() @ (values * scales).T


@pytest.mark.covering("rows", "outputs")
@pytest.mark.parametrize("rows", [1, 2, 5, 15, 16, 17, 31, 33, 64, 65, 100, 128, 130])
@pytest.mark.parametrize(("outputs", "inputs"), [(192, 576), (128, 64)])
def test_product(kernels: ModuleType, rows: int, outputs: int, inputs: int) -> None:
    packed = nf4.pack([quantised(outputs, inputs)])
    sample = torch.randn(rows, inputs).to(BF16)
    assert furthest(kernels.multiply(sample, packed).sum(0), exact_product(sample, packed)) < 1e-4


@pytest.mark.parametrize("most", [1, 2, 3, 8])
def test_product_in_parts(kernels: ModuleType, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from aligner_proxy.engine.gpu import triton_products

    monkeypatch.setattr(triton_products, "DIVISIONS", {8: triton_products.ProductDivision(2, most, 1024)})
    packed = nf4.pack([quantised(64, 1024)])
    sample = torch.randn(3, 1024).to(BF16)
    parts = kernels.multiply(sample, packed)
    assert len(parts) == most
    assert furthest(parts.sum(0), exact_product(sample, packed)) < 1e-4
    assert furthest(parts.sum(0), plain_kernels.multiply(sample, packed)[0]) < 0.5


def test_states_of_a_layer(kernels: ModuleType) -> None:
    step, slots = step_of([3, 9], [20, 9], 1, 1)
    hidden = torch.randn(step.rows, 48)
    stores = torch.full((2, slots, 4, 48), NAN)
    kernels.put_states(stores[0], 2, step, hidden)
    plain_kernels.put_states(stores[1], 2, step, hidden)
    assert torch.equal(stores[0][:-BLOCK].nan_to_num(7), stores[1][:-BLOCK].nan_to_num(7))
    assert int((~stores[0].isnan()).sum()) == 13 * 48, "twelve rows, and the slot of the padding"


def test_the_assembly_decodes_every_number_in_every_place() -> None:
    """Its instructions, carried out one by one: no processor here has them."""
    from aligner_proxy.engine.gpu import triton_products

    program = triton_products.PERMUTATIONS.value
    packed = nf4.pack([quantised(64, 64)])
    book = packed.coarse_book.view(torch.int16).tolist()
    tables = [table & 0xFFFFFFFF for table in packed.byte_tables[:, 0].tolist()]
    rng = random.Random(5)
    for _ in range(300):
        word = rng.getrandbits(32)
        assert emulated(program, word, tables) == [book[(word >> (4 * place)) & 15] & 0xFFFF for place in range(8)]


def emulated(program: str, word: int, tables: list[int]) -> list[int]:
    """The eight results of the assembly for one word."""
    registers = {"$8": word} | {f"${9 + number}": table for number, table in enumerate(tables)}
    results: dict[int, int] = {}

    def value(name: str) -> int:
        return registers[name] if name in registers else int(name, 16)

    for line in program.strip("{} ").split(";"):
        kind, _, rest = line.strip().partition(" ")
        if kind in ("", ".reg"):
            continue
        if kind == "mov.b32":
            places, _, source = rest.rpartition(", ")
            low, high = (int(place.strip(" $")) for place in places.strip("{}").split(","))
            results[low] = registers[source] & 0xFFFF
            results[high] = registers[source] >> 16
            continue
        target, *names = rest.split(", ")
        if kind == "prmt.b32":
            pool = [*value(names[0]).to_bytes(4, "little"), *value(names[1]).to_bytes(4, "little")]
            picks = [(value(names[2]) >> (4 * place)) & 15 for place in range(4)]
            assert max(picks) < 8, "a pick above seven repeats a sign"
            registers[target] = int.from_bytes(bytes(pool[pick] for pick in picks), "little")
        elif kind == "shr.b32":
            registers[target] = value(names[0]) >> int(names[1])
        else:
            one, other = map(value, names)
            registers[target] = {"and.b32": one & other, "or.b32": one | other}[kind]
    return [results[place] for place in range(8)]


def test_a_step_is_written_for_its_bucket() -> None:
    ask = Ask([5], draft=[6, 7], favoured=[6, 7], caution=1.5)
    step_input = StepInput(64, 4, 2, 999, torch.device("cpu"))
    rows, count = step_input.fill([feed([1] * 18 + [5, 6, 7], 18, [4, 2], ask), feed([9] * 3, 0, [7])])
    assert (rows, count) == (find_bucket(6), 4)
    step = step_input.view(rows)
    assert step.ids.tolist() == [5, 6, 7, 9, 9, 9, 0, 0]
    assert step.places.tolist() == [18, 19, 20, 0, 1, 2, 0, 0]
    assert step.slots.tolist() == [34, 35, 36, 112, 113, 114, 999, 999]
    assert step.starts.tolist() == [0, 3, *[6] * (MAX_SEQUENCES - 1)]
    assert step.lengths.tolist() == [21, 3, *[0] * (MAX_SEQUENCES - 2)]
    wanted = step_input.view_choice(count)
    assert wanted.rows.tolist() == [0, 1, 2, 5]
    assert wanted.favoured.tolist() == [6, 7, NO_SEQUENCE, NO_SEQUENCE]
    assert wanted.caution.tolist() == [1.5, 1.5, 1.5, 0.0]
