"""`pull` on a small model of the same architecture: from a folder, and from a hub that the test runs itself."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants
import pytest
import torch
from click.testing import CliRunner, Result

from aligner_proxy.cli import main
from aligner_proxy.engine.api import TokenLabelsRequest
from aligner_proxy.engine.model import acceleration, probe
from aligner_proxy.engine.model.token_classifier import open_classifier
from aligner_proxy.errors import WeightsError
from tests.support import tiny
from tests.support.tiny_classifiers import save_guard

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = "somebody/small-aligner"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "home"


def pull(*args: str) -> Result:
    return CliRunner().invoke(main, ["pull", *args], catch_exceptions=False)


class Hub(http.server.BaseHTTPRequestHandler):
    """The few answers of a model hub that a download needs; files come from `folder`."""

    folder: Path
    asked: list[str]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        self.asked.append(self.path)
        files = sorted(path.name for path in self.folder.iterdir())
        if self.path.startswith(f"/api/models/{MODEL}"):
            content = json.dumps(self._about(files)).encode()
        else:
            name = self.path.rpartition("/")[2].partition("?")[0]
            if name not in files:
                self.send_error(404)
                return
            content = (self.folder / name).read_bytes()
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def _about(self, files: list[str]) -> object:
        if "/tree/" in self.path:
            return [
                {"type": "file", "path": name, "size": (self.folder / name).stat().st_size, "oid": name}
                for name in files
            ]
        return {"_id": "1", "id": MODEL, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    handler = type("Served", (Hub,), {"folder": tiny.save(tmp_path / "served"), "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    monkeypatch.setattr(
        huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(huggingface_hub, "list_repo_files", huggingface_hub.HfApi(address).list_repo_files)
    with contextlib.closing(server.socket):
        yield handler
        server.shutdown()


def test_a_folder_is_quantised_once(tmp_path: Path, home: Path) -> None:
    folder = tiny.save(tmp_path / "full")
    first = pull(str(folder), "--template", "ultrafeedback")
    assert first.exit_code == 0, first.output
    stored = Path(first.stdout.strip())
    told = json.loads((stored / "stored.json").read_text())
    assert told["quantization"] == "nf4"
    assert "model.safetensors" in told["files"]
    before = (stored / "model.safetensors").stat().st_mtime_ns
    again = pull(str(folder), "--template", "ultrafeedback")
    assert again.stdout == first.stdout
    assert (stored / "model.safetensors").stat().st_mtime_ns == before
    assert "quantising" not in again.stderr


def test_on_a_gpu_what_fits_and_what_it_costs_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny.save(tmp_path / "full")
    assert "GPU" not in pull(str(folder), "--template", "imhi").output
    monkeypatch.setattr(probe, "describe_device", lambda: {"device": "cuda", "name": "NVIDIA L4", "memory_gb": 22.5})
    monkeypatch.setattr(acceleration, "find_missing_part", lambda: None)
    lines = " ".join(pull(str(folder), "--template", "imhi").stderr.split())
    assert "on NVIDIA L4 (22.5 GB): 0.0 GB of weights, " in lines
    assert "an estimate, not measured here: correcting an answer of 256 tokens" in lines


def test_a_hub_model_is_fetched_quantised_and_then_needs_no_hub(hub: type[Hub], home: Path) -> None:
    first = pull(MODEL, "--template", "imhi")
    assert first.exit_code == 0, first.output
    assert "fetching somebody/small-aligner" in first.stderr
    assert f"{MODEL}@{COMMIT}" in first.stderr.replace("\n", "")
    hub.asked.clear()
    again = pull(MODEL, "--template", "imhi")
    assert (again.exit_code, again.stdout, hub.asked) == (0, first.stdout, [])


@pytest.mark.filterwarnings("ignore::DeprecationWarning:bitsandbytes.*")
def test_a_judge_is_only_fetched_and_then_loaded_by_its_hub_id(hub: type[Hub], home: Path, tmp_path: Path) -> None:
    hub.folder = save_guard(tmp_path / "guard")
    result = pull("--judge", MODEL)
    assert (result.exit_code, result.stdout) == (0, ""), result.output
    hub.asked.clear()
    request = TokenLabelsRequest(request_id="t", model="m", question="When?", answer=tiny.ANSWER)
    spans = [
        open_classifier("m", model, "none", torch.float32).label_tokens(request).spans
        for model in (MODEL, f"{MODEL}@{COMMIT}", str(hub.folder))
    ]
    assert spans[0] == spans[1] == spans[2] != ()
    assert hub.asked == []
    with pytest.raises(WeightsError, match="somebody/other is not on this machine; run: aligner-proxy pull --judge"):
        open_classifier("m", "somebody/other", "none", torch.float32)


def test_an_unknown_hub_model_needs_a_template(hub: type[Hub]) -> None:
    result = pull(MODEL)
    assert result.exit_code == 2
    assert "set template to one of" in result.stderr


def test_without_a_network_one_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = huggingface_hub.HfApi("http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub, "list_repo_files", nowhere.list_repo_files)
    result = pull("MetaAligner/MetaAligner-UltraFeedback-7B")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("aligner-proxy: the hub cannot be reached to fetch MetaAligner/")


def test_a_missing_folder_is_one_sentence(tmp_path: Path) -> None:
    result = pull(str(tmp_path / "nowhere"))
    assert result.exit_code == 2
    assert "does not exist; give a folder" in result.stderr
