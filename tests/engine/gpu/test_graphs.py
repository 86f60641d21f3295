"""What a forward may do that is recorded as a graph, how few operations it takes, and that a step reads once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM

from aligner_proxy.engine.gpu.graphs import Replay
from aligner_proxy.engine.gpu.stack import Kernels
from aligner_proxy.engine.gpu.step import BUCKETS, CHOICE_BUCKETS
from aligner_proxy.engine.model.detector import DetectorHead
from aligner_proxy.engine.model.runner import ModelRunner
from aligner_proxy.engine.scheduling.scheduler import Feed, Job
from aligner_proxy.engine.scheduling.sequence import Ask, TokenSequence
from tests.engine.gpu import plain_kernels
from tests.engine.gpu.fake_recorder import FakeRecorder, NotRecordable, run_directly, storage_of, tensors_in
from tests.support import tiny

NUMBERS = torch.arange(12.0).view(3, 4)
MASK = NUMBERS > 5
PLACES = torch.tensor([2, 0])

UNRECORDABLE: dict[str, Callable[[], Any]] = {
    "a number": lambda: NUMBERS[0, 0].item(),
    "a list": lambda: PLACES.tolist(),
    "an array": lambda: PLACES.numpy(),
    "a condition": lambda: bool(MASK.any()),
    "a comparison": lambda: torch.equal(NUMBERS, NUMBERS),
    "the end of a slice": lambda: NUMBERS[: PLACES[0]],
    "the places of what is true": lambda: MASK.nonzero(),
    "the places by where": lambda: torch.where(MASK),
    "a mask as index": lambda: NUMBERS[MASK],
    "a mask as index of what is written": lambda: NUMBERS.index_put((MASK,), NUMBERS[0, 0]),
    "a list as index": lambda: NUMBERS[[2, 0]],
    "what a mask selects": lambda: NUMBERS.masked_select(MASK),
    "different values": lambda: torch.unique(PLACES),
    "counts": lambda: torch.bincount(PLACES),
    "as many copies as data say": lambda: NUMBERS.repeat_interleave(torch.ones_like(NUMBERS[:, 0]).long(), dim=0),
    "a tensor from the host": lambda: torch.tensor([1, 2], device="cpu"),
    "a copy to the host": lambda: NUMBERS.cpu(),
    "a copy to another device": lambda: NUMBERS.to("meta"),
}


@pytest.mark.parametrize("name", UNRECORDABLE)
def test_what_a_graph_cannot_record_is_refused(name: str) -> None:
    with torch.inference_mode(), pytest.raises(NotRecordable):
        FakeRecorder()(UNRECORDABLE[name])


def test_a_tensor_made_on_no_named_device_is_refused() -> None:
    """On a GPU it would be on the host."""
    with torch.inference_mode(), pytest.raises(RuntimeError, match="device meta"):
        FakeRecorder()(lambda: NUMBERS + torch.arange(4))


@torch.inference_mode()
def test_replays_have_new_input_and_an_old_place() -> None:
    given = torch.arange(4.0)
    replay = FakeRecorder()(lambda: (given * 2)[PLACES])
    first = replay()
    assert first.tolist() == [4.0, 0.0]
    given += 1
    assert replay() is first
    assert first.tolist() == [6.0, 2.0]


@torch.inference_mode()
def test_a_result_is_lost_when_anything_else_is_replayed() -> None:
    recorder = FakeRecorder()
    one = recorder(lambda: NUMBERS + 1)
    other = recorder(lambda: NUMBERS[0] + 1)
    result = one()
    other()
    assert result.isnan().all()
    assert one().tolist() == (NUMBERS + 1).tolist()


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.int32, torch.uint8])
def test_a_temporary_that_is_kept_between_replays_is_spoilt(dtype: torch.dtype) -> None:
    given = torch.ones(3, dtype=dtype)
    kept: list[Tensor] = []

    def function() -> Tensor:
        kept.append(given.flip(0)[1:])
        return kept[0].clone()

    replay = FakeRecorder()(function)
    assert not (replay() == 1).any()
    assert not (replay() == 1).any()
    assert len(kept) == 3
    assert not any((one == 1).any() for one in kept)


@torch.inference_mode()
def test_what_is_written_in_place_stays() -> None:
    store = torch.zeros(2, 4)
    part = store[1]

    def function() -> Tensor:
        part.index_copy_(0, PLACES, NUMBERS[0, :2] + 1)
        store[0] += 1
        return part[:3]

    replay = FakeRecorder()(function)
    replay()
    assert replay().tolist() == [2.0, 0.0, 1.0]
    # written once as it was recorded, and twice as it was replayed
    assert store.tolist() == [[3.0] * 4, [2.0, 0.0, 1.0, 0.0]]


def test_every_bucket_is_recorded_up_to_the_tokens_of_a_step() -> None:
    made = tiny.together(tokens=300)
    recorder = FakeRecorder()
    assert made.runner.use_recorded(plain_kernels, recorder) is None
    recorded = made.runner.recorded
    assert recorded is not None
    told: list[tuple[int, int]] = []
    recorded.record_all(lambda *progress: told.append(progress))
    most = made.runner.step_tokens
    count = sum(rows <= most for rows in (*BUCKETS, *CHOICE_BUCKETS))
    assert recorder.recordings == count
    assert told == [(number, count) for number in range(count)]


def test_no_forward_is_recorded_with_rows_of_an_earlier_step() -> None:
    """Loading compares a few tokens first; the smallest forwards would write beyond their own rows with these."""
    made = tiny.together(tokens=300)
    ends: dict[int, int] = {}

    def attend(queries: Any, keys: Any, values: Any, step: Any, scale: float) -> Any:
        ends[step.rows] = max(step.starts.tolist())
        return plain_kernels.attend(queries, keys, values, step, scale)

    def run_once(function: Any) -> Any:
        function()
        return function

    kernels: Any = SimpleNamespace(**vars(plain_kernels) | {"attend": attend})
    assert made.runner.use_recorded(kernels, run_once) is None
    assert made.runner.recorded is not None
    compared = dict(ends)
    ends.clear()
    made.runner.recorded.record_all()
    assert any(compared.values())
    assert {1, 2, 4} < set(ends)
    assert not any(ends.values())


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan")])
def test_forwards_of_which_one_is_wrong_are_given_up(factor: float) -> None:
    made = tiny.together(tokens=300)
    spoilt = set[int]()

    def normalise(residual: Any, parts: Any, weight: Any, epsilon: float, out: Any = None) -> Any:
        result = plain_kernels.normalise(residual, parts, weight, epsilon, out)
        if out is not None and len(residual) in spoilt:
            # one row, as if a few numbers in memory had been written over
            out[33] *= factor
        return result

    kernels: Any = SimpleNamespace(**vars(plain_kernels) | {"normalise": normalise})
    assert made.runner.use_recorded(kernels, run_directly) is None
    assert made.runner.check_recorded() is None
    assert made.runner.recorded is not None
    spoilt.add(128)
    assert made.runner.check_recorded() == "results for 128 tokens that differ from the library's"
    assert made.runner.recorded is None


def test_a_step_that_does_not_fit_is_not_taken() -> None:
    made = tiny.together(tokens=2000)
    assert made.runner.use_recorded(plain_kernels, FakeRecorder()) is None
    recorded = made.runner.recorded
    assert recorded is not None
    most = made.runner.step_tokens
    assert recorded.can_run([feed_of(most)])
    assert not recorded.can_run([feed_of(most), feed_of(1)])
    assert recorded.can_run([feed_of(1)] * 64)
    assert not recorded.can_run([feed_of(1)] * 65)
    assert not recorded.can_run([feed_of(1), feed_of(1, adapter=2)])


def feed_of(length: int, blocks: Sequence[int] = (), start: int = 0, adapter: int = 0) -> Feed:
    """The tokens of a sequence from `start` on; the model chooses one after the last."""
    work: Any = iter(())
    ids = [5 + place % 90 for place in range(length)]
    sequence = TokenSequence(adapter, ids=ids, blocks=list(blocks))
    return Feed(Job("-", work, print, sequence=sequence, ask=Ask(ids)), start, length)


class CountOperations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations that compute or copy: not views, and not those that a kernel in plain torch consists of."""

    def __init__(self, count: Counter[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = count
        self.inside = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called in place of every operation."""
        result = func(*args, **(kwargs or {}))
        if not self.inside and not is_view(func, args, result):
            self.count[str(func)] += 1
        return result

    def wrap(self, name: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
        """A kernel that counts as one operation."""

        def run(*args: Any, **settings: Any) -> Any:
            assert not self.inside, "kernels do not call each other through the namespace"
            self.count[name] += 1
            self.inside = True
            try:
                return kernel(*args, **settings)
            finally:
                self.inside = False

        return run


def is_view(func: Any, args: Any, result: Any) -> bool:
    """Whether an operation only describes memory of its arguments anew."""
    older = {storage_of(tensor) for tensor in tensors_in(args)}
    return not func._schema.is_mutable and all(storage_of(tensor) in older for tensor in tensors_in(result))


def make_model(layers: int) -> ModelRunner:
    """A Llama with a detector head that reads each layer, so that a step keeps as many states as it can."""
    torch.manual_seed(layers)
    config = LlamaConfig(
        vocab_size=384,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
    )
    head = DetectorHead(64, tuple(range(layers)), 16).eval()
    return ModelRunner(LlamaForCausalLM(config), tiny.runner().tokenizer, head, 1024)


KERNELS = [name for name in vars(Kernels) if not name.startswith("_")]
"""Functions that every module of kernels has."""


def count_operations(layers: int, sequences: int) -> Counter[str]:
    """The operations of one step of the recorded functions, each sequence of which has one new token."""
    count: Counter[str] = Counter()
    mode = CountOperations(count)
    kernels: Any = SimpleNamespace(**{name: mode.wrap(name, getattr(plain_kernels, name)) for name in KERNELS})

    def record(function: Callable[[], Any]) -> Replay:
        def replay() -> Any:
            with mode:
                return function()

        return replay

    runner = make_model(layers)
    assert runner.use_recorded(kernels, record) is None
    count.clear()
    runner.run(decode(sequences))
    return count


def decode(sequences: int) -> list[Feed]:
    """A step in which so many sequences have one new token each."""
    return [feed_of(40, range(3 * number, 3 * number + 3), 39) for number in range(sequences)]


@pytest.mark.parametrize("sequences", [1, 16])
def test_a_layer_takes_few_operations_whatever_the_company(sequences: int) -> None:
    few = count_operations(2, sequences)
    many = count_operations(6, sequences)
    layer = {name: (many[name] - few[name]) / 4 for name in many if many[name] > few[name]}
    assert sum(layer.values()) <= 15, layer
    assert sum(many.values()) - 6 * sum(layer.values()) <= 8, "before the first layer, and after the last"
    # a step is the same for all
    assert many == count_operations(6, 1)


class CountReads(TorchFunctionMode):
    """Counts what waits for a tensor and reads it on the host."""

    NAMES = ("tolist", "item", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__", "__array__", "nonzero")

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()
        self.inside = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called in place of every function of torch."""
        name = getattr(func, "__name__", "")
        if not self.inside and name in self.NAMES:
            self.count[name] += 1
        return func(*args, **(kwargs or {}))

    @contextmanager
    def leave_out(self) -> Iterator[None]:
        """Count nothing meanwhile."""
        self.inside = True
        yield
        self.inside = False


class CountScalars(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts scalars that are read by whatever way."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called in place of every operation."""
        self.count += torch.Tag.data_dependent_output in func.tags
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("sequences", [1, 16])
def test_a_step_reads_its_tokens_once_and_nothing_else(sequences: int) -> None:
    runner = make_model(2)
    reads = CountReads()
    recorder = FakeRecorder()

    def record(function: Callable[[], Any]) -> Replay:
        # the fake refuses reads in what is recorded
        with reads.leave_out():
            replay = recorder(function)

        def replay_uncounted() -> Any:
            with reads.leave_out():
                return replay()

        return replay_uncounted

    assert runner.use_recorded(plain_kernels, record) is None
    expected = runner.run(decode(sequences))
    scalars = CountScalars()
    with reads, scalars:
        chosen = runner.run(decode(sequences))
    assert chosen == expected
    assert dict(reads.count) == {"tolist": 1}
    assert scalars.count == 0
