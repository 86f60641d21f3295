"""From policies.yaml to a store: wrong settings are refused at the start, in plain words, and never with the key."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from aligner_proxy.audit import writer as audit
from aligner_proxy.errors import AuditError, ConfigError
from aligner_proxy.policy import config
from aligner_proxy.policy.schema import PolicyFile
from tests.audit.conftest import noted

KEY = base64.b64encode(bytes(range(32))).decode()


def load(folder: Path, text: str) -> PolicyFile:
    (folder / "policies.yaml").write_text(text)
    return config.load(folder / "policies.yaml")


def hide(text: str) -> str:
    """A redaction as an operator would write it."""
    return text.replace("fool", "****")


def test_it_is_off_unless_turned_on(tmp_path: Path) -> None:
    assert audit.make_recorder(load(tmp_path, "")) is None
    with pytest.raises(ConfigError, match="there is no audit store at"):
        audit.open_for_reading(load(tmp_path, "audit: {file: none.db}"))


async def test_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIT_KEY", KEY)
    told = "{enabled: true, file: kept.db, keep_days: 36000, key_env: AUDIT_KEY, redact: tests.audit.test_factory.hide}"
    file = load(tmp_path, f"audit: {told}")
    recorder = audit.make_recorder(file)
    assert recorder is not None
    recorder.note(noted())
    await recorder.aclose()
    assert b"It is" not in (tmp_path / "kept.db").read_bytes()
    store = audit.open_for_reading(file)
    (one,) = store.entries()
    store.close()
    assert one.content is not None
    assert one.content.exchange.answer == "It is so. You ****."


@pytest.mark.parametrize("value", [None, "", "short", base64.b64encode(b"x" * 31).decode(), "secret!" * 9])
def test_a_bad_key_is_refused_and_not_echoed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("AUDIT_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("AUDIT_KEY", value)
    file = load(tmp_path, "audit:\n  enabled: true\n  key_env: AUDIT_KEY\n")
    with pytest.raises(ConfigError, match=r"policies.yaml:3: audit.key_env: AUDIT_KEY must hold 32 bytes") as caught:
        audit.make_recorder(file)
    assert not value or value not in str(caught.value)


@pytest.mark.parametrize(
    ("dotted", "said"),
    [
        ("no.such.thing", "cannot import no.such"),
        ("tests.audit.test_factory.nothing", "has no nothing"),
        ("tests.audit.test_factory.KEY", "is not a function"),
    ],
)
def test_a_redaction_that_is_not_there_is_refused(tmp_path: Path, dotted: str, said: str) -> None:
    file = load(tmp_path, f"audit: {{enabled: true, redact: {dotted}}}")
    with pytest.raises(ConfigError, match=said):
        audit.make_recorder(file)


def test_a_database_is_named_by_its_variable_and_its_address_is_in_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = "audit:\n  enabled: true\n  database_env: AUDIT_DATABASE\n"
    with pytest.raises(ConfigError, match=r"policies.yaml:\d+: audit.database_env: AUDIT_DATABASE is not set"):
        audit.make_recorder(load(tmp_path, told))
    monkeypatch.setenv("AUDIT_DATABASE", "mysql://aligner:secret-word@db/audit")
    with pytest.raises(ConfigError, match="AUDIT_DATABASE holds no URL of a PostgreSQL") as caught:
        audit.make_recorder(load(tmp_path, told))
    assert "secret-word" not in str(caught.value)
    monkeypatch.setenv("AUDIT_DATABASE", "postgresql://aligner:secret-word@db/audit")
    place = audit.store_location(load(tmp_path, told))
    assert "secret-word" not in repr(place)
    with pytest.raises(ConfigError, match="one store: remove file, or database_env"):
        load(tmp_path, told + "  file: audit.db\n")


@pytest.mark.parametrize("name", [".", "/dev/null"])
def test_a_store_is_no_folder_and_no_device(tmp_path: Path, name: str) -> None:
    file = load(tmp_path, f"audit: {{enabled: true, file: {name}}}")
    for use in (audit.make_recorder, config.check_audit_file):
        with pytest.raises(ConfigError, match=r"policies.yaml:1: audit.file: .* is no file; name a file in a folder"):
            use(file)


def test_a_file_that_is_no_store_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("Not a database. " * 100)
    for place, reason in ((path, "file is not a database"), (tmp_path, "unable to open database file")):
        with pytest.raises(AuditError) as caught:
            audit.open_for_reading(load(tmp_path, "audit: {enabled: true}"), place)
        words = f"the audit store {place} cannot be opened ({reason}); try again, or name another"
        assert str(caught.value) == words
