"""Loader of aligners: resolves a model's name to files, prepares the weights once, and loads them into memory.

    aligner = open_aligner(EngineSettings("embedded"), home)

Preparation (merging the adapter into its base, quantising) takes a while. It happens the first time, and its result is
stored in the folder `home`. Later starts check and load the stored weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from aligner_proxy import prompts
from aligner_proxy.engine.api import AlignerInfo
from aligner_proxy.engine.decoding.aligner import Aligner
from aligner_proxy.engine.model import acceleration, cost, cpu_kernels, lora
from aligner_proxy.engine.model.detector import DEPTHS, DetectorHead
from aligner_proxy.engine.model.runner import AdapterWeights, ModelRunner
from aligner_proxy.engine.model.tokenizer import PromptTokenizer
from aligner_proxy.engine.taught_head import TaughtHead, unpack
from aligner_proxy.engine.weights import manifest, memory, sources
from aligner_proxy.engine.weights.store import Prepared, WeightStore
from aligner_proxy.errors import AlignerProxyError, MalformedHead, WeightsError
from aligner_proxy.types import DEFAULT_ALIGNER

if TYPE_CHECKING:
    from aligner_proxy.engine.model.token_classifier import TokenClassifier

Progress = Callable[[str], None]
"""Called before each slow step with a few words that say what is being done, such as "loading"."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Which aligner to load, and how it computes.

    `template` is needed only for models that do not name their own. With `threads` 0, torch's default applies.
    `cache_tokens` is the size of the KV cache if there is memory for it; by default `memory` chooses it. `adapters`
    maps the names that requests use to further aligners over the same base, `judges` those of token classifiers, which
    are quantised as the aligner is.
    """

    model: str | Path = "embedded"
    template: str | None = None
    quantization: Literal["nf4", "none"] = "nf4"
    dtype: Literal["auto", "bf16", "fp32"] = "auto"
    threads: int = 0
    cache_tokens: int | None = None
    adapters: Mapping[str, str | Path] = field(default_factory=dict)
    judges: Mapping[str, str | Path] = field(default_factory=dict)


def open_aligner(settings: EngineSettings, home: Path, progress: Progress = lambda _: None) -> Aligner:
    """Load an aligner, preparing its weights first if needed. Raises `WeightsError` or `ConfigError`."""
    if settings.threads:
        torch.set_num_threads(settings.threads)
    with _translate_failures(settings, home):
        # judges first, so that the aligner's KV cache gets only the memory that the judges leave
        judges = _open_judges(settings, progress)
        open_model = _open_together if settings.adapters else _open_alone
        aligner = open_model(settings, home, progress)
    if not judges:
        return aligner
    infos = {name: judge.info for name, judge in judges.items()}
    return replace(aligner, judges=judges, info=replace(aligner.info, judges=infos))


def _open_judges(settings: EngineSettings, progress: Progress) -> dict[str, TokenClassifier]:
    """Load the token classifiers, by the names of `settings.judges`."""
    if not settings.judges:
        return {}
    # imported only here, because most engines have no judges
    from aligner_proxy.engine.model.token_classifier import open_classifier

    judges = {}
    for name, model in settings.judges.items():
        progress(f"loading judge {name}")
        judges[name] = open_classifier(name, model, settings.quantization, _choose_dtype(settings))
    return judges


@contextlib.contextmanager
def _translate_failures(settings: EngineSettings, home: Path) -> Iterator[None]:
    """Turn whatever the libraries raise in this context into a `WeightsError` that names the model and the fix."""
    try:
        yield
    except AlignerProxyError:
        raise
    except Exception as error:
        # on a CPU, torch has no exception class for a lack of memory
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            problem = "not enough memory to load it; take a smaller model, or nf4"
        elif "No space left" in str(error):
            problem = f"the disk of {home} is full; make room on it, or set ALIGNER_PROXY_HOME to a folder elsewhere"
        elif isinstance(error, OSError) and str(error.filename or "").startswith(str(home)):
            problem = f"cannot use {home}: {error.strerror}; set ALIGNER_PROXY_HOME to a folder that you can write to"
        else:
            first_line = str(error).partition("\n")[0]
            problem = f"it cannot be loaded ({type(error).__name__}: {first_line}); fetch or export it again"
        raise WeightsError(f"{settings.model}: {problem}") from error


def _open_alone(settings: EngineSettings, home: Path, progress: Progress) -> Aligner:
    """Load one aligner by itself; its adapter, if it has one, is merged into the base model."""
    prepared, folder = _prepare(settings, home, progress)
    progress("loading")
    runner = load(folder, settings, progress=progress)
    runner.costs = cost.load_or_measure_costs(runner, WeightStore(home).costs(prepared))
    return Aligner(runner, _describe_aligner(prepared, runner))


def _open_together(settings: EngineSettings, home: Path, progress: Progress) -> Aligner:
    """Load one base model and all aligners that share it; return the default aligner, whose `others` has the rest."""
    progress("reading the files")
    base, adapters = sources.resolve_shared_base(settings.model, settings.template, settings.adapters)
    prepared, folder = _store_weights(base, settings, home, progress)
    progress("loading")
    runner = load(folder, settings, list(adapters.values()), progress)
    runner.costs = cost.load_or_measure_costs(runner, WeightStore(home).costs(prepared))
    aligners: dict[str, Aligner] = {}
    # the runner numbers its adapters from 1; number 0 is the base alone
    for number, (name, source) in enumerate(adapters.items(), start=1):
        description = describe(source, settings.quantization, unmerged=True)
        aligners[name] = Aligner(runner, _describe_aligner(description, runner, number), number)
    base_aligner = Aligner(runner, _describe_aligner(prepared, runner))
    # the base alone is the default aligner if no adapter has the default's name
    default_aligner = aligners.pop(DEFAULT_ALIGNER, base_aligner)
    infos = {name: aligner.info for name, aligner in aligners.items()}
    return replace(default_aligner, info=replace(default_aligner.info, others=infos), others=aligners)


def _describe_aligner(prepared: Prepared, runner: ModelRunner, number: int = 0) -> AlignerInfo:
    """Describe a loaded aligner; `number` is that of its adapter in the runner, 0 for the base alone."""
    family = prompts.find_template(prepared.template)
    heads = runner.heads[number]
    return AlignerInfo(
        model=prepared.model,
        content_hash=prepared.content_hash,
        template=family.name,
        template_hash=family.hash,
        # limited by its own window, the model's positions and the KV cache
        window=min(prepared.window, runner.positions, runner.pool.count * runner.pool.size),
        has_head=heads.detector is not None,
        ends=heads.detector is not None and bool(heads.detector.ends),
        taught=tuple(heads.taught_heads),
        languages=prepared.languages,
        quantization=prepared.quantization,
        device=runner.device,
    )


def prepare(settings: EngineSettings, home: Path, progress: Progress = lambda _: None) -> tuple[Prepared, Path]:
    """Return the prepared weights and their folder, preparing them now if they are not in the store."""
    with _translate_failures(settings, home):
        return _prepare(settings, home, progress)


def _prepare(settings: EngineSettings, home: Path, progress: Progress) -> tuple[Prepared, Path]:
    """Return a description of the model's prepared weights, and their folder; prepare them now if need be.

    Raises errors of the libraries unchanged.
    """
    store = WeightStore(home)
    if sources.is_hub_id(settings.model) and (stored := _find_prepared(store, settings)):
        return stored
    progress("reading the files")
    source = sources.resolve(settings.model, settings.template)
    prepared, folder = _store_weights(source, settings, home, progress)
    # a record of weights in the folder of the download would be wrong once the download is deleted
    if sources.is_hub_id(settings.model) and folder != source.base.folder:
        store.remember(str(settings.model), prepared)
    return prepared, folder


def _store_weights(
    source: sources.ModelSource, settings: EngineSettings, home: Path, progress: Progress
) -> tuple[Prepared, Path]:
    """Return a description of the prepared weights of `source`, and their folder.

    The weights are prepared now if they are not in the store under `home` yet.
    """
    prepared = describe(source, settings.quantization)
    store = WeightStore(home)
    if settings.quantization == "none" and not (source.adapter or source.base.gguf):
        # A full model needs no preparation; copying its many gigabytes would gain nothing.
        return prepared, source.base.folder
    folder = store.find(prepared)
    if folder is None:
        _check_preparation(source, store)
        progress("merging and quantising, this happens once")
        # imported here, because this import takes seconds and most starts only load prepared weights
        from aligner_proxy.engine.weights import quantise

        folder = store.make(
            prepared, lambda target: quantise.fill(source, settings.quantization, target, store.check_room)
        )
    return prepared, folder


def _check_preparation(source: sources.ModelSource, store: WeightStore) -> None:
    """Raise `WeightsError` if the model has no tokenizer, or if memory or disk are too small to prepare it.

    A base inside a GGUF file is not checked: the file holds the tokenizer, and its sizes are unknown before it is read.
    """
    folder = source.base.folder
    if source.base.gguf is None and not any((folder / name).exists() for name in manifest.TOKENIZERS):
        raise WeightsError(f"{folder} has no tokenizer; copy {manifest.TOKENIZERS[0]} of its base model into it")
    sizes = memory.read_model_sizes(folder)
    if sizes is None:
        return
    has_adapter = source.adapter is not None
    free_bytes = memory.measure_free_bytes()
    if free_bytes is not None:
        memory.check_preparation(sizes, free_bytes, merges=has_adapter)
    stored_bytes = sizes.count_weight_bytes("nf4", 2)
    # the base with the adapter merged into it is written in float32 before it is quantised
    merged_bytes = sizes.count_weight_bytes("none", 4) if has_adapter else 0
    store.check_room(stored_bytes + merged_bytes)  # of the disk


def _find_prepared(store: WeightStore, settings: EngineSettings) -> tuple[Prepared, Path] | None:
    """The description and the folder of weights of a hub id that were prepared earlier.

    None if there are none, or if they were prepared for another template than the settings ask for.
    """
    record = store.find_prepared(str(settings.model), settings.quantization)
    if record is None or settings.template not in (None, record.template):
        return None
    folder = store.find(record)
    return (record, folder) if folder else None


def describe(source: sources.ModelSource, quantization: str, *, unmerged: bool = False) -> Prepared:
    """Describe the prepared weights of a source. Their hash covers everything that changes the model's output.

    `unmerged` says whether the adapter is applied at run time instead of being merged into its base. It changes the
    hash, because unmerged and merged adapters give slightly different outputs.
    """
    family = prompts.find_template(source.template)
    hashed = {"files": source.identity, "template": family.hash, "window": source.window, "quantization": quantization}
    if unmerged:
        hashed["adapter"] = "beside the base"
    content_hash = manifest.digest(hashed)
    return Prepared(source.model, content_hash, family.name, source.window, quantization, languages=source.languages)


def load(
    folder: Path,
    settings: EngineSettings,
    adapters: Sequence[sources.ModelSource] = (),
    progress: Progress = lambda _: None,
) -> ModelRunner:
    """Return a runner with the prepared weights in `folder` and the adapters, on the GPU if there is one.

    Raises `WeightsError` if they cannot be loaded.
    """
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    has_heads = (folder / manifest.HEAD).exists() or any(source.head for source in adapters)
    # detector heads read the hidden states of the layers in `DEPTHS`, and those after the final norm
    states = len(DEPTHS) + 1 if has_heads else 0
    cache_tokens = _count_cache_tokens(folder, settings, states=states)
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            str(folder), device_map=device, dtype=_choose_dtype(settings), local_files_only=True
        )
        tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        head = _load_head(folder / manifest.HEAD, model)
        taught_heads = _load_shipped_heads(folder / manifest.TAUGHT, head)
        loaded_adapters = [_load_adapter(source.adapter, source, model) for source in adapters if source.adapter]
    # the errors that the libraries raise for missing or damaged files
    except (OSError, ValueError, KeyError, SafetensorError, UnpicklingError, MalformedHead) as error:
        raise WeightsError(
            f"{folder} cannot be loaded ({type(error).__name__}: {error}); fetch or export it again"
        ) from error
    if device == "cpu" and _choose_dtype(settings) == torch.float32:
        # transformers leaves the weights of a 4-bit model that are not packed in the type in which they were stored
        _widen_weights(model)
    cpu_kernels.install(model.eval())
    prompt_tokenizer = PromptTokenizer(tokenizer.backend_tokenizer, _find_eos_ids(model, tokenizer, folder))
    runner = ModelRunner(model, prompt_tokenizer, head, cache_tokens, loaded_adapters, taught_heads)
    if device != "cpu":
        acceleration.accelerate(runner, progress)
    return runner


def _widen_weights(model: Any) -> None:
    """Convert all weights to fp32, except packed 4-bit weights."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.float()


def _count_cache_tokens(folder: Path, settings: EngineSettings, states: int) -> int:
    """Tokens of KV cache that fit into memory beside the weights; `states` hidden states are stored with each token.

    Raises `WeightsError` if the weights do not fit.
    """
    sizes = memory.read_model_sizes(folder)
    free_bytes = float(torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else memory.measure_free_bytes()
    max_tokens = settings.cache_tokens or memory.CACHE_TOKENS
    if sizes is None or free_bytes is None:
        return max_tokens  # how many fit is unknown
    number_bytes = 4 if _choose_dtype(settings) == torch.float32 else 2
    # on the CPU, some memory is needed for unpacked copies of 4-bit weights
    if settings.quantization == "nf4" and not torch.cuda.is_available():
        free_bytes -= cpu_kernels.count_copy_bytes(sizes.linear)
    try:
        if settings.cache_tokens is None and torch.cuda.is_available():
            # our own kernels also keep a bf16 copy of 4-bit weights, if there is room
            copies = settings.quantization == "nf4" and acceleration.find_missing_part() is None
            plan = memory.plan_gpu(sizes, settings.quantization, number_bytes, states, free_bytes, copies=copies)
            return plan.cache_tokens
        return memory.count_cache_tokens(sizes, settings.quantization, number_bytes, states, free_bytes, max_tokens)
    except WeightsError as error:
        raise WeightsError(f"{settings.model}: {error}") from None


def _load_head(path: Path | None, model: Any) -> DetectorHead | None:
    """Load the detector head at `path`; None if there is no file. Raises `ValueError` if it does not fit the model."""
    if path is None or not path.exists():
        return None
    head = DetectorHead.load(path)
    if not head.fits(model.config):
        raise ValueError("its detector head is of another base model")
    return head


def _load_adapter(adapter: Path, source: sources.ModelSource, model: Any) -> AdapterWeights:
    """Load the weights of `adapter`, and the detector head and taught heads of its source."""
    head = _load_head(source.head, model)
    return AdapterWeights(lora.read_adapter(adapter), head, _load_shipped_heads(source.taught_heads, head))


def _load_shipped_heads(path: Path | None, head: DetectorHead | None) -> tuple[TaughtHead, ...]:
    """Read the taught heads in an aligner's folder; raises `ValueError` for one that does not fit the detector `head`.

    A taught head there must not name its aligner: the aligner's hash covers the head, so the head cannot contain it.
    """
    if path is None or not path.exists():
        return ()
    taught_heads = unpack(path.read_bytes())
    width = head.row_width if head else 0
    for taught_head in taught_heads:
        if taught_head.aligner:
            raise ValueError(f"the taught head of {taught_head.objective!r} names an aligner; write it without")
        if taught_head.width != width:
            raise ValueError(
                f"the taught head of {taught_head.objective!r} reads rows of {taught_head.width} numbers, not {width}"
            )
    return taught_heads


def _choose_dtype(settings: EngineSettings) -> torch.dtype:
    """The number type to compute in: the configured one, else bf16 on a GPU and for 4-bit kernels, else fp32."""
    if settings.dtype != "auto":
        return torch.float32 if settings.dtype == "fp32" else torch.bfloat16
    is_bf16_fast = torch.cuda.is_available() or (settings.quantization == "nf4" and cpu_kernels.has_kernel())
    return torch.bfloat16 if is_bf16_fast else torch.float32


def _find_eos_ids(model: Any, tokenizer: Any, folder: Path) -> frozenset[int]:
    """Ids of the tokens that end a text. Raises `WeightsError` if there are none.

    A list in the model's configuration is complete; to a single id there, or none, the tokenizer's id is added.
    """
    configured_ids = model.generation_config.eos_token_id
    ids = configured_ids if isinstance(configured_ids, list) else [configured_ids, tokenizer.eos_token_id]
    eos_ids = frozenset(int(token_id) for token_id in ids if token_id is not None)
    if not eos_ids:
        raise WeightsError(f"{folder} names no end-of-text token; set eos_token_id in its generation_config.json")
    return eos_ids
