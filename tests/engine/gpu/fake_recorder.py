"""A recorder on the CPU that is as strict as a CUDA graph: no host, no data in shapes, nothing kept between replays.

    recorder = FakeRecorder()
    replay = recorder(function)     # raises NotRecordable where a graph could not be recorded
    replay()                        # the result is in the tensor that the first replay returned

Whatever the function makes is spoilt when it has run, and its result when anything runs again, because the memory of
graphs in one pool belongs to whichever of them runs. So only tensors that were there before carry anything on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from aligner_proxy.engine.gpu.graphs import Replay

aten: Any = torch.ops.aten
_INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
_READING = {aten.resolve_neg.default}
"""What `tolist` and `numpy` call before they read a tensor on the CPU; on a GPU both wait."""
_FROM_THE_HOST = {aten.lift_fresh.default, aten.lift_fresh_copy.default}
_DEPENDING = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_MASKS = (torch.bool, torch.uint8)


class NotRecordable(Exception):
    """The function does what a CUDA graph cannot repeat."""


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Raises on what cannot be recorded, and remembers all memory that a function takes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._fresh: dict[int, Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called in place of every operation."""
        kwargs = kwargs or {}
        self._check(func, args, kwargs)
        # in inference mode, operations that consist of others arrive whole
        if func._can_decompose():
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        result = func(*args, **kwargs)
        older = {storage_of(tensor) for tensor in tensors_in((args, kwargs))}
        for tensor in tensors_in(result):
            if storage_of(tensor) not in older:
                self._fresh[storage_of(tensor)] = tensor
        return result

    def _check(self, func: Any, args: Any, kwargs: Any) -> None:
        if func in _INDEXING:
            if any(index.dtype in _MASKS for index in tensors_in(args[1])):
                raise NotRecordable(f"{func} with a mask")
        elif func in _READING or _DEPENDING & set(func.tags):
            raise NotRecordable(f"{func} reads data on the host")
        elif func in _FROM_THE_HOST:
            raise NotRecordable(f"{func} makes a tensor from data of the host")
        # a device that is named is another one on some machine, even if not on this one
        if func.overloadpacket in (aten.to, aten._to_copy) and _names_device(func, args, kwargs):
            raise NotRecordable(f"{func} to a device that is named")
        if func.overloadpacket is aten.copy_ and args[0].device != args[1].device:
            raise NotRecordable(f"{func} between devices")

    def is_fresh(self, tensor: Any) -> bool:
        """Whether the memory of a tensor was taken by what was watched."""
        return isinstance(tensor, Tensor) and storage_of(tensor) in self._fresh

    def spoil(self) -> None:
        """Fill all memory that was taken with numbers that nobody can mistake for results."""
        for tensor in self._fresh.values():
            spoil(tensor)


def _names_device(func: Any, args: Any, kwargs: Any) -> bool:
    if func is aten.to.other or (func is aten.to.device and len(args) > 1):
        return True
    return kwargs.get("device") is not None


def storage_of(tensor: Tensor) -> int:
    """What identifies the memory that a tensor is in."""
    return int(tensor.untyped_storage()._cdata)


def tensors_in(tree: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists and dictionaries."""
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def spoil(tensor: Tensor) -> None:
    """Fill the whole memory that a tensor is in: NaN, or the largest integer."""
    storage = tensor.untyped_storage()
    if tensor.device.type == "meta" or not storage.nbytes():
        return
    with torch.inference_mode():
        count = storage.nbytes() // tensor.element_size()
        whole = torch.empty(0, dtype=tensor.dtype).set_(storage, 0, (count,), (1,))
        if tensor.dtype == torch.bool:
            whole.fill_(True)
        else:
            whole.fill_(torch.nan if tensor.is_floating_point() else torch.iinfo(tensor.dtype).max)


class FakeRecorder:
    """Records functions as `CudaRecorder` does; `recordings` and `replays` count what was done."""

    def __init__(self) -> None:
        self.recordings = 0
        self.replays = 0
        self._results: list[Tensor] = []

    def __call__(self, function: Callable[[], Any]) -> Replay:
        """Run the function once, watched; return what runs it again."""
        self.recordings += 1
        watch = self._start()
        # tensors that are made on no named device land on another one than the function's
        with torch.device("meta"), watch:
            result = function()
        watch.spoil()
        if watch.is_fresh(result):
            self._results.append(result)

        def replay() -> Any:
            self.replays += 1
            watch = self._start()
            with watch:
                again = function()
            if isinstance(result, Tensor):
                result.copy_(again)
            watch.spoil()
            return result

        return replay

    def _start(self) -> Watch:
        """Spoil the results of all earlier replays."""
        spoil_all(self._results)
        return Watch()


def spoil_all(tensors: Iterable[Tensor]) -> None:
    """Fill the memory of all of them."""
    for tensor in tensors:
        spoil(tensor)


def run_directly(function: Callable[[], Any]) -> Replay:
    """A recorder that records nothing: each replay calls the function."""
    return function
