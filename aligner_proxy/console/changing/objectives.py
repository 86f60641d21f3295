"""Pages of objectives: what is taught of each, its examples, and a lesson with its report before it takes effect."""

from __future__ import annotations

import asyncio
import base64
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from starlette.responses import RedirectResponse, Response

from aligner_proxy.audit import writer
from aligner_proxy.audit.replay import share
from aligner_proxy.console.answer import Shown
from aligner_proxy.console.changing.known_objectives import KnownObjective, known_objectives
from aligner_proxy.console.files import Configured
from aligner_proxy.console.forms import NOT_FOUND, PageError
from aligner_proxy.console.long_work import Work
from aligner_proxy.console.pages import Visit
from aligner_proxy.errors import ConfigError
from aligner_proxy.policy.yaml_file import blocked, intended, put, read_text, rewrite
from aligner_proxy.teaching import example_file, from_reviews, subjects
from aligner_proxy.teaching.example_file import AGAINST, FINE, NewExample
from aligner_proxy.teaching.examples import Example, Examples
from aligner_proxy.teaching.from_reviews import Suggestion
from aligner_proxy.teaching.store import Count, HeadStore, Version, path_of, scope_of
from aligner_proxy.teaching.subjects import Subject

log = logging.getLogger(__name__)

PATH = "/objectives"
_MOST_SUGGESTED = 50
_changing = threading.Lock()
"""Two forms do not write one file at the same time."""
_CHANGED = "The examples, or the text, have changed since this report; teach again."
_OTHERS = "There are other sentences now than the page showed; look at them first."


def interval(count: Count) -> tuple[float, float, float]:
    """A share with the ends of its 95 % interval."""
    return share(count.hits, count.of)


async def listed(visit: Visit) -> Response:
    """Every objective that this viewer may see."""
    found = await asyncio.to_thread(_listed, visit)
    return visit.page("objectives.html", objectives=found, interval=interval)


def _listed(visit: Visit) -> list[KnownObjective]:
    known = known_objectives(visit.services.files.current().policies)
    return [objective for objective in known if objective.may_see(visit.viewer)]


@dataclass(frozen=True, slots=True)
class _Contents:
    """What the page of one objective shows."""

    known: KnownObjective
    examples: Examples | None
    """None where they are not for this viewer, or cannot be read."""
    fault: str | None = None
    suggested: Sequence[Suggestion] = ()

    @property
    def digest(self) -> str:
        """What tells these suggestions from others."""
        return from_reviews.digest(self.suggested)


async def objective(visit: Visit) -> Response:
    """One objective."""
    contents = await asyncio.to_thread(_contents, visit)
    shown = [(suggestion, Shown(suggestion.entry)) for suggestion in contents.suggested]
    may_change = contents.known.may_change(visit.viewer)
    return visit.page(
        "objective.html",
        known=contents.known,
        contents=contents,
        suggested=shown,
        lists=_lists(contents.examples),
        may_change=may_change,
        work=visit.services.works.of(_work_name(contents.known)) if may_change else None,
        report=_report(visit, contents.known) if may_change else (),
        interval=interval,
        mark=example_file.example_id,
    )


async def lesson(visit: Visit) -> Response:
    """How far the lesson is, which the page asks for by itself."""
    known = await asyncio.to_thread(_changeable, visit)
    work = visit.services.works.of(_work_name(known))
    report = await asyncio.to_thread(_report, visit, known)
    return visit.page("lesson.html", known=known, work=work, report=report, interval=interval)


async def change(visit: Visit, form: dict[str, str]) -> Response:
    """A form of the page."""
    act = form.get("act", "")
    known = await asyncio.to_thread(_changeable, visit)
    if act == "teach":
        _teach(visit, known)
    elif act == "discard":
        visit.services.works.forget(_work_name(known))
    elif act in _ACTS:
        await asyncio.to_thread(_changed, visit, known, act, form)
        if act == "keep":
            visit.services.works.forget(_work_name(known))
    else:
        raise PageError(400, "There is no such button.")
    return RedirectResponse(f"{PATH}/{known.handle}", 303)


def _known(visit: Visit) -> KnownObjective:
    """The objective of the address; 404 for one that is not there, or not for this viewer."""
    name = visit.request.path_params["handle"]
    known = known_objectives(visit.services.files.current().policies)
    found = next((objective for objective in known if objective.handle == name), None)
    if found is None or not found.may_see(visit.viewer):
        raise PageError(404, NOT_FOUND)
    return found


def _changeable(visit: Visit) -> KnownObjective:
    """The same, where this viewer may change it."""
    found = _known(visit)
    if not found.may_change(visit.viewer):
        raise PageError(404, NOT_FOUND)
    return found


def _contents(visit: Visit) -> _Contents:
    known = _known(visit)
    if known.subject is None or not known.may_change(visit.viewer):
        return _Contents(known, None)
    try:
        examples = example_file.present_examples(known.subject)
    except ConfigError as error:
        return _Contents(known, None, str(error))
    return _Contents(known, examples, suggested=_suggested(visit, known.subject, examples))


def _suggested(visit: Visit, subject: Subject, examples: Examples) -> list[Suggestion]:
    """What reviews say of this objective; nothing without an audit store."""
    configured = visit.services.files.current()
    if not writer.has_store(configured.policies):
        return []
    with closing(configured.store()) as store:
        found = from_reviews.suggestions(configured.policies, store, subject, examples, _MOST_SUGGESTED)
    return [suggestion for suggestion in found if visit.viewer.may_see(suggestion.entry.tenant)]


def _lists(examples: Examples | None) -> tuple[tuple[str, str, Sequence[Example]], ...]:
    if examples is None:
        return ()
    return (
        (AGAINST, "They go against it", examples.against),
        (FINE, "They sound alike and are fine", examples.fine),
    )


def _changed(visit: Visit, known: KnownObjective, act: str, form: dict[str, str]) -> None:
    """Do what a form says; what cannot be done is a mistake of the form."""
    try:
        with _changing:
            _ACTS[act](visit, known, form)
    except ConfigError as error:
        raise PageError(400, f"Nothing was changed: {error}.") from None


def _subject(known: KnownObjective) -> Subject:
    if known.subject is None:
        raise PageError(409, "This objective has no file of examples yet.")
    return known.subject


def _sentences(form: dict[str, str], origin: str) -> list[NewExample]:
    """The sentences of a form, one a line."""
    found = []
    for listed_as in (AGAINST, FINE):
        lines = map(str.strip, form.get(listed_as, "").split("\n"))
        found += [NewExample(line, listed_as == AGAINST, origin) for line in lines if line]
    if not found:
        raise PageError(400, "There is no sentence in this form.")
    return found


def _add(visit: Visit, known: KnownObjective, form: dict[str, str]) -> None:
    subject = _subject(known)
    sentences = _sentences(form, f"console, {visit.viewer.name}")
    _hold_new(visit, subject)
    count = example_file.add_examples(subject, sentences)
    _note(visit, known, f"{count} examples added")


def _begin(visit: Visit, known: KnownObjective, form: dict[str, str]) -> None:
    """Give an objective a file of examples, and name it in the policies file; for the operator alone."""
    if not visit.viewer.is_operator:
        raise PageError(404, NOT_FOUND)
    if known.subject is not None:
        raise PageError(409, "This objective has a file of examples already.")
    configured = visit.services.files.current()
    name = f"{known.title.replace('/', '.')}.examples.yaml"
    place = path_of(configured.policies)
    file = place.parent / name
    if file.exists():
        raise PageError(409, f"There is a file {name} already; name it under this objective's `examples`.")
    scope = scope_of(known.tenant)
    subject = Subject(known.name, known.title, known.text, scope, known.tenant, file, known.place)
    sentences = _sentences(form, f"console, {visit.viewer.name}")
    before = read_text(place)
    after = _with_examples(before, known, name, configured)
    _hold_new(visit, subject)
    count = example_file.add_examples(subject, sentences)
    try:
        # A link, as a mounted file may be, stays one.
        rewrite(place.resolve(), before, after, backup=True)
    except ConfigError:
        file.unlink()
        raise
    _note(visit, known, f"{count} examples begun")


def _with_examples(before: str, known: KnownObjective, name: str, configured: Configured) -> str:
    """The policies file with a file of examples under an objective."""

    def edit(text: str) -> str:
        return put(blocked(text, known.path, "text"), known.path, "examples", name)

    def changed(data: Any) -> None:
        block = data
        for part in known.path[:-1]:
            block = block[part]
        entry = block[known.path[-1]]
        block[known.path[-1]] = {**(entry if isinstance(entry, dict) else {"text": entry}), "examples": name}

    return intended(before, path_of(configured.policies), edit, changed)


def _hold_new(visit: Visit, subject: Subject) -> None:
    """Where a file of examples is begun here, let nothing be taught of it by itself: a report comes first."""
    if subject.examples.exists():
        return
    policies = visit.services.files.current().policies
    HeadStore.for_file(policies).block_auto_teaching(subject.scope, subject.name, subjects.aligner_names(policies))


def _remove(visit: Visit, known: KnownObjective, form: dict[str, str]) -> None:
    kind = form.get("list", "")
    gone = kind in (AGAINST, FINE) and example_file.remove_example(_subject(known), kind, form.get("example", ""))
    if not gone:
        raise PageError(409, "This example is gone already.")
    _note(visit, known, "1 example taken back")


def _take(visit: Visit, known: KnownObjective, form: dict[str, str]) -> None:
    """Make examples of what reviews say: of one sentence, or of all that the page showed."""
    subject = _subject(known)
    suggested = _suggested(visit, subject, example_file.present_examples(subject))
    if form.get("example"):
        chosen = [one for one in suggested if example_file.example_id(one.sentence.text) == form["example"]]
    else:
        chosen = suggested if from_reviews.digest(suggested) == form.get("shown") else []
    if not chosen:
        raise PageError(409, _OTHERS)
    _hold_new(visit, subject)
    count = example_file.add_examples(subject, [one.sentence for one in chosen])
    answers = ", ".join(f"{one.review.aligner_id}/{one.review.choice}#{one.segment}" for one in chosen)
    _note(visit, known, f"{count} examples from reviews of {answers}")


def _keep(visit: Visit, known: KnownObjective, form: dict[str, str]) -> None:
    """Put the heads of the report in force: exactly these, of exactly these examples."""
    subject = _subject(known)
    heads = _heads(visit.services.works.of(_work_name(known)))
    if not heads or form.get("heads") != ",".join(version.head for version, _ in heads):
        raise PageError(409, "There is no such report any more; teach again.")
    digest = subject.read().digest
    if any(version.text != subject.text or version.digest != digest for version, _ in heads):
        raise PageError(409, _CHANGED)
    store = HeadStore.for_file(visit.services.files.current().policies)
    for version, data in heads:
        store.activate(subject.scope, subject.name, version, data)
        _note(visit, known, f"head {version.head[:8]} of aligner {version.called} put in force")


def _rollback(visit: Visit, known: KnownObjective, _: dict[str, str]) -> None:
    subject = _subject(known)
    back = HeadStore.for_file(visit.services.files.current().policies).rollback(
        subject.scope, subject.name, subject.text
    )
    if not back:
        raise PageError(409, "There is no earlier head of this text.")
    _note(visit, known, f"back to head {', '.join(version.head[:8] for version in back)}")


def _forget(visit: Visit, known: KnownObjective, _: dict[str, str]) -> None:
    subject = _subject(known)
    count = HeadStore.for_file(visit.services.files.current().policies).forget(subject.scope, subject.name)
    _note(visit, known, f"{count} heads forgotten")


_ACTS: dict[str, Callable[[Visit, KnownObjective, dict[str, str]], None]] = {
    "add": _add,
    "begin": _begin,
    "remove": _remove,
    "take": _take,
    "keep": _keep,
    "rollback": _rollback,
    "forget": _forget,
}


def _teach(visit: Visit, known: KnownObjective) -> None:
    """Begin a lesson that puts nothing in force."""
    subject = _subject(known)
    services = visit.services
    file = path_of(services.files.current().policies)
    arguments = ["teach", str(file), subject.title, "--dry-run", "--json-lines", *services.files.engine_options()]
    services.works.begin(_work_name(known), arguments)
    _note(visit, known, "a lesson begun")


def _work_name(known: KnownObjective) -> str:
    return f"teach {known.handle}"


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a lesson for one aligner."""

    aligner: str
    why: str | None
    """Why nothing was learned; None: something was."""
    version: Version | None = None
    told: dict[str, Any] | None = None
    """The command's own report."""
    troubles: tuple[tuple[str, Sequence[Example]], ...] = ()
    """Examples that need another look, by what is wrong with them."""


_TROUBLES = (
    ("held_out_missed", "Missed when held out: the others do not teach them"),
    ("never_found", "Cannot be learned: not flagged although learned from"),
    ("fine_flagged", "Flagged although fine"),
)


def _report(visit: Visit, known: KnownObjective) -> list[Report]:
    """The report of the last lesson, aligner by aligner; empty without one."""
    work = visit.services.works.of(_work_name(known))
    if work is None or work.result is None or known.subject is None:
        return []
    try:
        examples = example_file.present_examples(known.subject)
    except ConfigError:
        examples = Examples(())
    by_place = {example.place: example for example in examples.every}
    reports = []
    for told in work.result["objectives"]:
        if not told["taught"]:
            reports.append(Report(told["aligner"], str(told["why"])))
            continue
        troubles = tuple(
            (label, [by_place.get(place, Example("", place)) for place in told[name]])
            for name, label in _TROUBLES
            if told[name]
        )
        reports.append(Report(told["aligner"], None, Version.model_validate(told["version"]), told, troubles))
    return reports


def _heads(work: Work | None) -> list[tuple[Version, bytes]]:
    """The heads that a lesson brought, with their bytes."""
    if work is None or work.result is None:
        return []
    taught = [told for told in work.result["objectives"] if told["taught"]]
    return [(Version.model_validate(told["version"]), base64.b64decode(told["head_bytes"])) for told in taught]


def _note(visit: Visit, known: KnownObjective, what: str) -> None:
    """One line for each change: who, what, and ids; never a text."""
    log.info("console: %s changed objective %s: %s", visit.viewer.name, known.title, what)
