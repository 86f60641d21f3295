"""`aligner-proxy promote`: writes a change of policy into the policies file.

Comments and layout stay. A change is refused if `check` would refuse the result, or if it would affect other settings.
A change that lets more edits out is also refused if reviews prove that too many of them are wrong. The file is replaced
atomically, and a backup is written next to it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.text import Text

from aligner_proxy.cli.options import FiniteFloat
from aligner_proxy.cli.terminal import Terminal, echo, echo_json
from aligner_proxy.errors import ConfigError
from aligner_proxy.policy import shares
from aligner_proxy.policy.litellm_config import resolve_policies_file
from aligner_proxy.text.hidden import escape_hidden
from aligner_proxy.types import Mode
from aligner_proxy_review.cli.options import share_fields
from aligner_proxy_review.promotion import BOUND, Proposal, Ruling, SettingChanges, Target, make_proposal, make_ruling

_COLOURS = {"+": "green", "-": "red", "@": "cyan"}
"""Colours of the lines of a diff, by their first character."""


@click.command("promote")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--route", help="Name of the route to change, as x-aligner-policy shows it.")
@click.option("--tenant", help="Name of the tenant to change.")
@click.option(
    "--defaults", is_flag=True, help="Change the defaults, which apply where neither route nor tenant sets a value."
)
@click.option("--mode", type=click.Choice([mode.value for mode in Mode]), help="enforce, shadow or off.")
@click.option("--sample", type=FiniteFloat(0, 1), help="Share of requests whose answers are checked.")
@click.option(
    "--caution", type=FiniteFloat(), help="Nats by which an edit must score better than leaving the text unchanged."
)
@click.option(
    "--objective", "objectives", multiple=True, help="Name of an objective to add; may be given several times."
)
@click.option("--aligner", help="Which aligner corrects, or shares of several: default=95,acme-2=5.")
@click.option("--shadow-aligner", help="Another aligner that also scores the same answers, for comparison only.")
@click.option(
    "--bound",
    default=BOUND,
    show_default=True,
    type=FiniteFloat(0, 1),
    help="Highest share of reviewed edits that may be wrong; the change is refused if the 95 % interval lies above it.",
)
@click.option(
    "--require-evidence", is_flag=True, help="Also refuse the change if too few reviews prove a share below the bound."
)
@click.option("--dry-run", is_flag=True, help="Show the change and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of the diff.")
def command(
    file: Path,
    route: str | None,
    tenant: str | None,
    defaults: bool,
    objectives: tuple[str, ...],
    bound: float,
    require_evidence: bool,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Change settings of one route, one tenant or the defaults in FILE (policies file, or LiteLLM YAML).

    For example: aligner-proxy promote gateway/policies.yaml --route support --mode enforce --dry-run
    """
    # a mounted file may be a link, which has to stay
    path = resolve_policies_file(file).resolve()
    if options["aligner"] is not None:
        options["aligner"] = shares.parse_shares(options["aligner"])
    new_values = {name: value for name, value in options.items() if value is not None}
    changes = SettingChanges(new_values, objectives)
    given_places = [place for place in (route, tenant, defaults or None) if place is not None]
    if len(given_places) != 1 or not changes:
        raise ConfigError(
            "say where (one of --route, --tenant, --defaults) and what (--mode, --sample, --caution, --objective, "
            "--aligner, --shadow-aligner)"
        )
    proposal = make_proposal(path, Target(route, tenant), changes)
    ruling = make_ruling(proposal, bound, strict=require_evidence)
    if ruling is not None and ruling.refusal and not dry_run:
        fix = "take out what is wrong (aligner-proxy teach, a higher caution), or raise --bound"
        raise ConfigError(f"not promoted: {ruling.refusal}; {fix}")
    backup = None if dry_run else proposal.write()
    _print_report(proposal, ruling, backup, as_json=as_json)


def _print_report(proposal: Proposal, ruling: Ruling | None, backup: Path | None, *, as_json: bool) -> None:
    """Print the diff with what the reviews say about it, or one JSON object.

    `ruling` is None if the change delivers no more edits than before; `backup` is None if nothing was written.
    """
    lines = proposal.diff
    if as_json:
        report = {
            "file": str(proposal.path),
            "diff": lines,
            "backup": str(backup) if backup else None,
            "doubtful_comments": proposal.doubtful_comments,
            "evidence": _ruling_fields(ruling),
        }
        echo_json(report, indent=2)
        return
    console = Terminal(soft_wrap=True)
    if not lines:
        console.print(Text("nothing to change: the file has these settings already"))
    for line in lines:
        console.print(Text(escape_hidden(line), style=_COLOURS.get(line[0], "")))
    if ruling is not None and ruling.refusal:
        echo(f"would be refused: {ruling.refusal}", err=True)
    elif ruling is not None and ruling.warning:
        echo(f"not known yet: {ruling.warning}", err=True)
    if proposal.doubtful_comments:
        line_numbers = ", ".join(map(str, proposal.doubtful_comments))
        echo(f"read again: the comment in line {line_numbers} is about what changes, and stays as it is", err=True)
    if backup is not None:
        console.print(Text(f"written; backup of the old file: {backup.name}", style="dim"))


def _ruling_fields(ruling: Ruling | None) -> dict[str, Any] | None:
    """What reviews say about the change, as JSON; None if it delivers no more edits than before."""
    if ruling is None:
        return None
    wrong = None if ruling.wrong is None else share_fields(ruling.wrong)
    return {"wrong": wrong, "bound": ruling.bound, "needed": ruling.reviews_needed, "refused": ruling.refusal}
