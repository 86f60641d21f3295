"""`aligner-proxy audit erase`: delete the records of one answer and their reviews."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import click

from aligner_proxy.audit import writer
from aligner_proxy.audit.entry import BESIDE_ID, SIDE_IDS
from aligner_proxy.audit.store import AuditStore
from aligner_proxy.cli.terminal import echo, echo_json
from aligner_proxy.errors import AuditError, ConfigError
from aligner_proxy.plugins import registry
from aligner_proxy.policy.litellm_config import resolve_policies_file


@click.group("audit")
def command() -> None:
    """Maintain the audit store."""


@command.command("erase")
@click.argument("name", metavar="ID")
@click.option("--policy", "policies", required=True, type=click.Path(path_type=Path), help="The policies file.")
@click.option("--audit", "path", type=click.Path(path_type=Path), help="A store other than that of the policies.")
@click.option("--tenant", help="The answer's tenant, needed if several tenants have the same call id.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def erase(name: str, policies: Path, path: Path | None, tenant: str | None, as_json: bool) -> None:
    """Delete the entries with this x-aligner-id or call id, and their reviews. Exit status 1 means that there are none.

    For example: aligner-proxy audit erase fbd2fdb2abb70c41d1a2d87f09fce900 --policy gateway/policies.yaml
    """
    store = writer.open_for_reading(registry.load_policies(resolve_policies_file(policies)), path)
    try:
        with store.transaction():
            erased_count = store.erase(_find_rows(store, name, tenant))
        if erased_count:
            store.empty_log()  # the database's log may still contain the deleted text
    except sqlite3.Error as error:
        raise AuditError(f"the audit store cannot be written ({error.sqlite_errorname}); try again") from None
    finally:
        store.close()
    if as_json:
        echo_json({"erased": erased_count})
    else:
        echo(f"{erased_count} entries erased, with their reviews")
    if not erased_count:
        click.get_current_context().exit(1)


def _find_rows(store: AuditStore, name: str, tenant: str | None) -> list[int]:
    """Return the row ids of an answer, of the texts beside it, and of the shadow aligner's results for it.

    `name` is the answer's x-aligner-id or call id. Raises `ConfigError` if several tenants have entries with this id.
    """
    aligner_ids = [name, *(name + suffix for suffix in (*SIDE_IDS.values(), BESIDE_ID))]
    placeholders = ", ".join("?" * len(aligner_ids))
    rows = store.fetch_rows(
        f"SELECT id, tenant FROM entries WHERE ((aligner_id IN ({placeholders}) AND aligner_id != '') "
        "OR call_id = ?) AND (? IS NULL OR tenant IN (?, 'team:' || ?))",
        (*aligner_ids, name, tenant, tenant, tenant),
    )
    tenants = sorted({str(row_tenant) for _, row_tenant in rows})
    if len(tenants) > 1:
        raise ConfigError(f"several tenants have a call with this id; choose one with --tenant: {', '.join(tenants)}")
    return [int(row_id) for row_id, _ in rows]
