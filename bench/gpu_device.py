"""The device that `bench.gpu_floor` measures: how a call is timed on it, and the rates that bound a forward."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from bench import shapes

Row = dict[str, Any]
"""One measurement, as a line of gpu_floor.jsonl: its name, and its figures by name."""
NF4_BYTES = 0.5159
"""Bytes of a weight in NF4: half a byte, and its share of the scales."""


class DeviceBench:
    """The device, its rates, and how many answers are written at once.

    The rates are those of an H100 until `measure_ceilings` has measured this card.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.device = torch.device(options.device)
        self.on_gpu = self.device.type == "cuda"
        self.together = 16 if self.on_gpu else 3
        self.bandwidth = 3.0e12  # bytes a second
        self.arithmetic = 7.9e14  # operations a second in bf16

    def time_call(self, call: Callable[[], Any], rounds: int = 20) -> float:
        """Milliseconds of a call, the median of `rounds`; on a GPU between two events."""
        call()
        times = []
        for _ in range(rounds if self.on_gpu else 2):
            if not self.on_gpu:
                began = time.perf_counter()
                call()
                times.append(1000 * (time.perf_counter() - began))
                continue
            events: list[Any] = [torch.cuda.Event(enable_timing=True) for _ in range(2)]  # type: ignore[no-untyped-call]
            events[0].record()
            call()
            events[1].record()
            events[1].synchronize()
            times.append(events[0].elapsed_time(events[1]))
        return statistics.median(times)

    def time_in_graph(self, calls: Sequence[Callable[[], Any]], rounds: int = 10) -> float:
        """Milliseconds of one of several calls that are recorded in one graph, one after the other."""
        if not self.on_gpu:
            return self.time_call(calls[0])
        for call in calls:
            call()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for call in calls:
                call()
        return self.time_call(graph.replay, rounds) / len(calls)

    def floor_of_forward(self, shape: str, rows: int, context: int) -> float:
        """Milliseconds that a forward with NF4 weights takes at least.

        This is the larger of two times: to read all weights and the keys and values of `context` tokens once, and to
        compute `rows` rows.
        """
        sizes = shapes.SHAPES[shape]
        hidden = sizes["hidden_size"]
        layers = sizes["num_hidden_layers"]
        key_width = shapes.count_key_heads(shape) * hidden // sizes["num_attention_heads"]
        linear = layers * (2 * hidden * hidden + 2 * hidden * key_width + 3 * hidden * sizes["intermediate_size"])
        head = shapes.VOCABULARY * hidden
        cache_bytes = 2 * layers * key_width * 2 * context
        bytes_read = linear * NF4_BYTES + head * 2 + cache_bytes
        operations = 2 * linear * rows + 4 * hidden * layers * rows * context + 2 * head
        return 1000 * max(bytes_read / self.bandwidth, operations / self.arithmetic)
