"""Files that a gateway reads, written by somebody who wants it to run, to open or to tell something."""

from __future__ import annotations

import json
import os
import pickle
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diskcache
import pytest
import yaml

from aligner_proxy.engine import sockets
from aligner_proxy.engine.loader import EngineSettings, open_aligner
from aligner_proxy.engine.weights import manifest
from aligner_proxy.engine.weights.store import Prepared, WeightStore
from aligner_proxy.errors import ConfigError, WeightsError
from aligner_proxy.pipeline.cache import CorrectionCache
from aligner_proxy.policy import config, litellm_config
from aligner_proxy.policy.keys_file import load_keys
from tests.attacks.attack import Attack, rows
from tests.support import tiny

SECRET = "sk-secret-7f3Qm2Vx9LtB4wZk"
laughs = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
FILES = rows(
    (
        "yaml-object",
        "policies file",
        "a tag that makes a loader run a program",
        "refused by line; nothing runs",
        "a: !!python/object/apply:os.system ['touch {canary}']\n",
    ),
    ("yaml-laughs", "policies file", "aliases of aliases: 300 million values in 300 bytes", "refused", laughs),
    ("yaml-loop", "policies file", "an alias inside itself", "refused", "a: &a [*a]\n"),
    ("yaml-deep", "policies file", "five thousand brackets", "refused", "a: " + "[" * 5000 + "]" * 5000),
    (
        "yaml-twice",
        "policies file",
        "a key that stands twice, so that readers differ",
        "refused with both lines",
        "defaults: {mode: enforce}\ndefaults: {mode: 'off'}\n",
    ),
    ("yaml-bytes", "policies file", "bytes that are no text", "refused", b"\xff\xfe\x00"),
    ("yaml-numbers", "policies file", "a deadline that never comes", "refused", "defaults: {deadline_s: .inf}\n"),
    ("yaml-nan", "policies file", "a caution that no number exceeds", "refused", "defaults: {caution: .nan}\n"),
    (
        "yaml-share",
        "policies file",
        "a share that samples nothing and looks like a lot",
        "refused",
        "defaults: {sample: 1e9}\n",
    ),
    (
        "yaml-key",
        "policies file",
        "a misspelt key that would leave the default in force",
        "refused with the nearest key",
        "tenants: [{match: {team: a}, enforced: [harmless]}]\n",
    ),
    (
        "yaml-shadowed",
        "policies file",
        "a route that an earlier one hides",
        "refused with both lines",
        "routes: [{match: {model: '*'}}, {match: {model: gpt}, objectives: [harmless]}]\n",
    ),
    (
        "engine-file",
        "policies file",
        "an engine address that is a file",
        "refused",
        "aligner: {engine: 'file:///etc/passwd'}\n",
    ),
    (
        "engine-relative",
        "policies file",
        "an engine socket below the working directory",
        "refused",
        "aligner: {engine: 'unix:engine.sock'}\n",
    ),
)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("attack", FILES)
def test_the_file_is_refused_in_words(attack: Attack, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    path = tmp_path / "policies.yaml"
    text = attack.payload
    path.write_bytes(text if isinstance(text, bytes) else text.replace("{canary}", str(canary)).encode())
    with pytest.raises(ConfigError, match=r"policies\.yaml"):
        config.load(path)
    assert not canary.exists()


TOLD = rows(
    (
        "tell-policies",
        "LiteLLM file",
        "names a file of secrets as the policies file",
        "the refusal quotes nothing of it",
        "policies",
    ),
    (
        "tell-keys",
        "policies file",
        "names a file of plain keys as the keys file",
        "the refusal quotes nothing of it",
        "keys",
    ),
    ("tell-entry", "keys file", "holds a key where its hash should be", "the refusal does not repeat it", "entry"),
)


@pytest.mark.parametrize("attack", TOLD)
def test_a_refusal_quotes_no_secret(attack: Attack, tmp_path: Path) -> None:
    secret = tmp_path / "secrets.yaml"
    forms = {
        "policies": f"password: {SECRET}\n{SECRET}: 1\n",
        "keys": f"- {SECRET}\n",
        "entry": yaml.safe_dump([{"sha256": SECRET, "alias": "a"}]),
    }
    secret.write_text(forms[attack.payload])
    with pytest.raises(ConfigError) as refused:
        load_keys(secret) if attack.payload != "policies" else config.load(secret)
    told = str(refused.value).replace(f"unknown key '{SECRET}'", "")  # a key's name is shown, never a value
    assert SECRET not in told


PLACES = rows(
    (
        "path-second-copy",
        "LiteLLM file",
        "lies where LiteLLM would run another file in our name",
        "`serve` refuses",
        "copy",
    ),
    (
        "path-link",
        "another user",
        "a link where the socket's folder should be",
        "refused: it could hand answers to somebody else",
        "link",
    ),
    ("path-socket", "another user", "a plain file where the socket should be", "refused, and not removed", "file"),
    (
        "path-hub",
        "operator of one tenant",
        "a model's name with steps upwards",
        "its note stays inside the store",
        "hub",
    ),
)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder with a short name: below a long one the socket goes elsewhere."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.mark.parametrize("attack", PLACES)
def test_no_path_leads_elsewhere(attack: Attack, short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path = short_path
    home = tmp_path / "home"
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(home))
    if attack.payload == "copy":
        (tmp_path / "aligner_proxy").mkdir()
        (tmp_path / "aligner_proxy" / "guardrail.py").write_text("raise SystemExit")
        with pytest.raises(ConfigError, match="second copy"):
            litellm_config.check_class_is_ours(tmp_path / "litellm.yaml")
    elif attack.payload == "link":
        (tmp_path / "theirs").mkdir()
        home.mkdir()
        (home / "run").symlink_to(tmp_path / "theirs")
        with pytest.raises(ConfigError, match="belongs to another user"):
            config.default_socket()
    elif attack.payload == "file":
        (tmp_path / "e.sock").write_text("mine")
        with pytest.raises(ConfigError, match="no socket"), sockets.listen_on_unix_socket(tmp_path / "e.sock"):
            pass
        assert (tmp_path / "e.sock").read_text() == "mine"
    else:
        store = WeightStore(home)
        store.remember("../../../evil", Prepared("m", "h", "ultrafeedback", 64, "nf4"))
        assert [path.parent for path in tmp_path.rglob("*evil*")] == [home / "models"]


class Runs:
    """Unpickling it leaves a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.canary),))


CODE = rows(
    ("pickle-cache", "cache file", "an entry that runs a program when it is read", "nothing runs; a miss", "cache"),
    (
        "pickle-weights",
        "model file",
        "weights that run a program when they are read",
        "nothing runs; refused",
        "weights",
    ),
    ("model-code", "model file", "a configuration that brings code of its own", "nothing runs", "code"),
    ("model-changed", "model file", "weights other than the manifest's", "refused by name", "changed"),
    ("model-outside", "model file", "a manifest that names files elsewhere", "refused", "outside"),
    ("model-unnamed", "model file", "a manifest that names no files, or not all", "refused by name", "unnamed"),
)


@pytest.mark.parametrize("attack", CODE)
async def test_a_file_of_data_runs_nothing(attack: Attack, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    folder = tmp_path / "model"
    settings = EngineSettings(folder, template="ultrafeedback", quantization="none", dtype="fp32")
    if attack.payload == "cache":
        with diskcache.Cache(str(tmp_path / "store")) as store:
            store.set("k", Runs(canary))
        cache = CorrectionCache(tmp_path / "store", 60, 4)
        assert await cache.get("k") is None
        await cache.aclose()
    elif attack.payload == "weights":
        tiny.save(folder)
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Runs(canary), protocol=2))
        with pytest.raises(WeightsError):
            open_aligner(settings, tmp_path / "home")
    elif attack.payload == "code":
        tiny.save(folder)
        told = json.loads((folder / "config.json").read_text())
        told["auto_map"] = {"AutoModelForCausalLM": "evil.Model", "AutoConfig": "evil.Config"}
        (folder / "config.json").write_text(json.dumps(told))
        (folder / "evil.py").write_text(f"import os\nos.mkdir({str(canary)!r})\n")
        open_aligner(settings, tmp_path / "home")
    elif attack.payload == "unnamed":
        tiny.save(folder)
        for files in ({}, {"config.json": manifest.sha256(folder / "config.json")}):
            _describe(folder, files)
            with pytest.raises(WeightsError, match=r"files|has no sha256 of"):
                open_aligner(settings, tmp_path / "home")
    else:
        tiny.save(folder)
        name = "model.safetensors" if attack.payload == "changed" else "../secret"
        (tmp_path / "secret").write_text(SECRET)
        digest = "0" * 64 if attack.payload == "changed" else manifest.sha256(tmp_path / "secret")
        _describe(folder, {name: digest})
        with pytest.raises(WeightsError, match=r"corrupt|manifest"):
            open_aligner(settings, tmp_path / "home")
    assert not canary.exists()


def _describe(folder: Path, files: dict[str, str]) -> None:
    """A manifest of a whole model."""
    told = {"format": 1, "template": "ultrafeedback", "files": files}
    (folder / manifest.MANIFEST).write_text(json.dumps(told))
