"""Pages of objectives: their taught heads (small nets that detect violations), their examples, and teaching.

The report on a taught head is shown before the head takes effect. An action here is what a button of a form does.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from starlette.responses import RedirectResponse, Response

from aligner_proxy.audit import writer
from aligner_proxy.errors import ConfigError
from aligner_proxy.policy.yaml_edit import apply_checked_edit, put_value, replace_file, wrap_in_block
from aligner_proxy.policy.yaml_file import read_text
from aligner_proxy.teaching import example_file, subjects
from aligner_proxy.teaching.example_file import AGAINST, FINE, NewExample
from aligner_proxy.teaching.examples import Example, Examples
from aligner_proxy.teaching.store import HeadStore, Version, path_of, scope_of
from aligner_proxy.teaching.subjects import Subject
from aligner_proxy_review import from_reviews
from aligner_proxy_review.console.answer import AnswerView
from aligner_proxy_review.console.changing.known_objectives import KnownObjective, list_objectives
from aligner_proxy_review.console.files import ConsoleConfig
from aligner_proxy_review.console.forms import NOT_FOUND, PageError
from aligner_proxy_review.console.jobs import ConsoleJob
from aligner_proxy_review.console.pages import Visit
from aligner_proxy_review.from_reviews import Suggestion

log = logging.getLogger(__name__)

PATH = "/objectives"
_MAX_SUGGESTED = 50
"""At most this many suggestions are shown at a time."""
_change_lock = threading.Lock()
"""Prevents two forms from writing a file at the same time."""
_EXAMPLES_CHANGED = "The examples, or the text, have changed since this report; teach again."
"""Shown if a report is no longer about the present examples."""
_OTHER_SENTENCES = "There are other sentences now than the page showed; look at them first."


async def show_list(visit: Visit) -> Response:
    """Show all objectives that this viewer may see."""
    objectives = await asyncio.to_thread(_visible_objectives, visit)
    return visit.render_page("objectives.html", objectives=objectives)


def _visible_objectives(visit: Visit) -> list[KnownObjective]:
    """The objectives that this viewer may see, in the order of the file."""
    objectives = list_objectives(visit.services.files.current().policies)
    return [objective for objective in objectives if objective.may_see(visit.viewer)]


@dataclass(frozen=True, slots=True)
class _Contents:
    """The contents of one objective's page."""

    target: KnownObjective
    examples: Examples | None
    """None if this viewer may not see them or they cannot be read."""
    fault: str | None = None
    """Why the examples cannot be read; None if they can, or if this viewer may not see them."""
    suggestions: Sequence[Suggestion] = ()
    """Sentences from reviews that may become examples."""

    @property
    def digest(self) -> str:
        """A hash that changes with the list of suggestions."""
        return from_reviews.hash_suggestions(self.suggestions)


async def show_objective(visit: Visit) -> Response:
    """Show an objective; its examples, suggestions and teaching are shown only to viewers who may change it."""
    contents = await asyncio.to_thread(_read_contents, visit)
    suggestions_with_answers = [(suggestion, AnswerView(suggestion.entry)) for suggestion in contents.suggestions]
    may_change = contents.target.may_change(visit.viewer)
    return visit.render_page(
        "objective.html",
        known=contents.target,
        contents=contents,
        suggested=suggestions_with_answers,
        example_lists=_example_lists(contents.examples),
        may_change=may_change,
        job=visit.services.jobs.find(_job_name(contents.target)) if may_change else None,
        report=_teaching_reports(visit, contents.target) if may_change else (),
        example_id=example_file.example_id,
    )


async def show_teaching(visit: Visit) -> Response:
    """Show the progress of teaching; the page polls this."""
    target = await asyncio.to_thread(_find_changeable, visit)
    job = visit.services.jobs.find(_job_name(target))
    report = await asyncio.to_thread(_teaching_reports, visit, target)
    return visit.render_page("lesson.html", known=target, job=job, report=report)


async def take_form(visit: Visit, form: dict[str, str]) -> Response:
    """Do what the button of a form says, and redirect to the objective's page; raises `PageError`."""
    button = form.get("act", "")
    target = await asyncio.to_thread(_find_changeable, visit)
    if button == "teach":
        _start_teaching(visit, target)
    elif button == "discard":
        visit.services.jobs.forget(_job_name(target))
    elif button in _ACTIONS:
        await asyncio.to_thread(_apply_action, visit, target, button, form)
        # the heads of the report are active now, so the report is not needed any more
        if button == "keep":
            visit.services.jobs.forget(_job_name(target))
    else:
        raise PageError(400, "There is no such button.")
    return RedirectResponse(f"{PATH}/{target.handle}", 303)


def _find_objective(visit: Visit) -> KnownObjective:
    """Return the objective that the URL names; raises `PageError` 404 unless this viewer may see it."""
    handle = visit.request.path_params["handle"]
    objectives = list_objectives(visit.services.files.current().policies)
    target = next((objective for objective in objectives if objective.handle == handle), None)
    if target is None or not target.may_see(visit.viewer):
        raise PageError(404, NOT_FOUND)
    return target


def _find_changeable(visit: Visit) -> KnownObjective:
    """Return the objective that the URL names; raises `PageError` 404 unless this viewer may change it."""
    target = _find_objective(visit)
    if not target.may_change(visit.viewer):
        raise PageError(404, NOT_FOUND)
    return target


def _read_contents(visit: Visit) -> _Contents:
    """Read what the page of an objective shows; it has no examples for viewers who may not change the objective."""
    target = _find_objective(visit)
    if target.subject is None or not target.may_change(visit.viewer):
        return _Contents(target, examples=None)
    try:
        examples = example_file.present_examples(target.subject)
    except ConfigError as error:
        return _Contents(target, examples=None, fault=str(error))
    return _Contents(target, examples, suggestions=_find_suggestions(visit, target.subject, examples))


def _find_suggestions(visit: Visit, subject: Subject, examples: Examples) -> list[Suggestion]:
    """Find suggestions of examples from reviews of this objective; empty without an audit store."""
    console_config = visit.services.files.current()
    policies = console_config.policies
    if not writer.has_store(policies):
        return []
    with closing(console_config.store()) as store:
        suggestions = from_reviews.find_suggestions(policies, store, subject, examples, _MAX_SUGGESTED)
    return [suggestion for suggestion in suggestions if visit.viewer.may_see(suggestion.entry.tenant)]


def _example_lists(examples: Examples | None) -> tuple[tuple[str, str, Sequence[Example]], ...]:
    """(key of the list in forms, heading on the page, examples) of both lists of examples; empty if they are None."""
    if examples is None:
        return ()
    return (
        (AGAINST, "They go against it", examples.against),
        (FINE, "They sound alike and are fine", examples.fine),
    )


def _apply_action(visit: Visit, target: KnownObjective, button: str, form: dict[str, str]) -> None:
    """Do what the pressed button of a form says; raises `PageError`, also in place of a `ConfigError`."""
    try:
        with _change_lock:
            _ACTIONS[button](visit, target, form)
    except ConfigError as error:
        raise PageError(400, f"Nothing was changed: {error}.") from None


def _require_subject(target: KnownObjective) -> Subject:
    """Return what to teach of an objective; raises `PageError` 409 if it has no examples."""
    if target.subject is None:
        raise PageError(409, "This objective has no file of examples yet.")
    return target.subject


def _parse_sentences(form: dict[str, str], origin: str) -> list[NewExample]:
    """Read the examples of a form, one on each line of its two lists; raises `PageError` 400 if there is none.

    `origin` says where the examples come from.
    """
    sentences = []
    for list_key in (AGAINST, FINE):
        lines = map(str.strip, form.get(list_key, "").split("\n"))
        sentences += [NewExample(line, list_key == AGAINST, origin) for line in lines if line]
    if not sentences:
        raise PageError(400, "There is no sentence in this form.")
    return sentences


def _add_examples(visit: Visit, target: KnownObjective, form: dict[str, str]) -> None:
    """Add the sentences of a form to the examples."""
    subject = _require_subject(target)
    sentences = _parse_sentences(form, f"console, {visit.viewer.name}")
    _block_auto_teaching_of_new_file(visit, subject)
    count = example_file.add_examples(subject, sentences)
    _log_change(visit, target, f"{count} examples added")


def _begin_examples(visit: Visit, target: KnownObjective, form: dict[str, str]) -> None:
    """Create a file of examples for an objective, and name it in the policies file; only the operator may do this."""
    if not visit.viewer.is_operator:
        raise PageError(404, NOT_FOUND)
    if target.subject is not None:
        raise PageError(409, "This objective has a file of examples already.")
    console_config = visit.services.files.current()
    # the title of a tenant's objective contains a slash
    file_name = f"{target.title.replace('/', '.')}.examples.yaml"
    policies_path = path_of(console_config.policies)
    file = policies_path.parent / file_name
    if file.exists():
        raise PageError(409, f"There is a file {file_name} already; name it under this objective's `examples`.")
    scope = scope_of(target.tenant)
    subject = Subject(target.name, target.title, target.text, scope, target.tenant, file, target.place)
    sentences = _parse_sentences(form, f"console, {visit.viewer.name}")
    old_text = read_text(policies_path)
    new_text = _name_examples_file(old_text, target, file_name, console_config)
    _block_auto_teaching_of_new_file(visit, subject)
    count = example_file.add_examples(subject, sentences)
    try:
        # links are resolved, since a mounted file may be a link that has to stay
        replace_file(policies_path.resolve(), old_text, new_text, backup=True)
    except ConfigError:
        # nothing names the new file, and it would block the next try
        file.unlink()
        raise
    _log_change(visit, target, f"{count} examples begun")


def _name_examples_file(
    policies_text: str, target: KnownObjective, file_name: str, console_config: ConsoleConfig
) -> str:
    """Return the policies file's text with a file of examples named under an objective; raises `ConfigError`."""

    def edit_text(text: str) -> str:
        return put_value(wrap_in_block(text, target.path, "text"), target.path, "examples", file_name)

    def change_data(data: Any) -> None:
        *outer_keys, objective_key = target.path
        block = data
        for key in outer_keys:
            block = block[key]
        entry = block[objective_key]
        # an objective may be written as its text alone
        settings = entry if isinstance(entry, dict) else {"text": entry}
        block[objective_key] = {**settings, "examples": file_name}

    # raises if the edited text does not parse to the changed data
    return apply_checked_edit(policies_text, path_of(console_config.policies), edit_text, change_data)


def _block_auto_teaching_of_new_file(visit: Visit, subject: Subject) -> None:
    """Block automatic teaching of an objective whose file of examples is new, so that people see the report first."""
    if subject.examples.exists():
        return
    policies = visit.services.files.current().policies
    HeadStore.for_file(policies).block_auto_teaching(subject.scope, subject.name, subjects.used_aligners(policies))


def _remove_example(visit: Visit, target: KnownObjective, form: dict[str, str]) -> None:
    """Remove the example that the form names from its list; raises `PageError` 409 if it is not there."""
    subject = _require_subject(target)
    list_key = form.get("list", "")
    example_id = form.get("example", "")
    if list_key not in (AGAINST, FINE) or not example_file.remove_example(subject, list_key, example_id):
        raise PageError(409, "This example is gone already.")
    _log_change(visit, target, "1 example taken back")


def _take_suggestions(visit: Visit, target: KnownObjective, form: dict[str, str]) -> None:
    """Add suggestions from reviews as examples: one sentence, or all that the page showed.

    Raises `PageError` 409 if the suggestions are not those that the page showed.
    """
    subject = _require_subject(target)
    suggestions = _find_suggestions(visit, subject, example_file.present_examples(subject))
    if form.get("example"):
        suggestions = [
            suggestion
            for suggestion in suggestions
            if example_file.example_id(suggestion.sentence.text) == form["example"]
        ]
    elif from_reviews.hash_suggestions(suggestions) != form.get("shown"):
        # nobody may take sentences that the page did not show
        suggestions = []
    if not suggestions:
        raise PageError(409, _OTHER_SENTENCES)
    _block_auto_teaching_of_new_file(visit, subject)
    count = example_file.add_examples(subject, [suggestion.sentence for suggestion in suggestions])
    segments = ", ".join(
        f"{suggestion.review.aligner_id}/{suggestion.review.choice}#{suggestion.segment}" for suggestion in suggestions
    )
    _log_change(visit, target, f"{count} examples from reviews of {segments}")


def _activate_heads(visit: Visit, target: KnownObjective, form: dict[str, str]) -> None:
    """Activate exactly the heads of the report; raises `PageError` 409 if the report or its examples have changed."""
    subject = _require_subject(target)
    heads = _taught_heads(visit.services.jobs.find(_job_name(target)))
    # the objective may have been taught again since the page was loaded
    if not heads or form.get("heads") != ",".join(version.head for version, _ in heads):
        raise PageError(409, "This report is no longer available; teach again.")
    examples_digest = subject.read_examples().digest
    # the report may be about another text or other examples
    if any(version.text != subject.text or version.digest != examples_digest for version, _ in heads):
        raise PageError(409, _EXAMPLES_CHANGED)
    store = HeadStore.for_file(visit.services.files.current().policies)
    for version, head_bytes in heads:
        store.activate(subject.scope, subject.name, version, head_bytes)
        _log_change(visit, target, f"head {version.head[:8]} of aligner {version.called} put in force")


def _rollback_heads(visit: Visit, target: KnownObjective, _: dict[str, str]) -> None:
    """Activate the previous heads; raises `PageError` 409 if none was taught for the present text."""
    subject = _require_subject(target)
    active_versions = HeadStore.for_file(visit.services.files.current().policies).rollback(
        subject.scope, subject.name, subject.text
    )
    if not active_versions:
        raise PageError(409, "There is no earlier head for this text.")
    _log_change(visit, target, f"back to head {', '.join(version.head[:8] for version in active_versions)}")


def _forget_heads(visit: Visit, target: KnownObjective, _: dict[str, str]) -> None:
    subject = _require_subject(target)
    count = HeadStore.for_file(visit.services.files.current().policies).forget(subject.scope, subject.name)
    _log_change(visit, target, f"{count} heads forgotten")


# What each button does, by its name; `form` has the fields of the form.
_ACTIONS: dict[str, Callable[[Visit, KnownObjective, dict[str, str]], None]] = {
    "add": _add_examples,
    "begin": _begin_examples,
    "remove": _remove_example,
    "take": _take_suggestions,
    "keep": _activate_heads,
    "rollback": _rollback_heads,
    "forget": _forget_heads,
}


def _start_teaching(visit: Visit, target: KnownObjective) -> None:
    """Start teaching an objective; the heads stay inactive until somebody has seen the report and activates them."""
    subject = _require_subject(target)
    services = visit.services
    file = path_of(services.files.current().policies)
    arguments = ["teach", str(file), subject.title, "--dry-run", "--json-lines", *services.files.engine_options()]
    services.jobs.begin(_job_name(target), arguments)
    _log_change(visit, target, "teaching begun")


def _job_name(target: KnownObjective) -> str:
    """The name of the job that teaches an objective."""
    return f"teach {target.handle}"


@dataclass(frozen=True, slots=True)
class TeachingReport:
    """The result of teaching for one aligner."""

    aligner: str
    why: str | None
    """Why nothing was learned; None if a head was."""
    version: Version | None = None
    """The taught head; None if nothing was learned."""
    result: dict[str, Any] | None = None
    """The report of the `teach` command."""
    troubles: tuple[tuple[str, Sequence[Example]], ...] = ()
    """(heading, examples) for each kind of problem that examples have."""


_PROBLEM_HEADINGS = (
    # key in the report of `teach` for the examples with a problem, heading above them
    ("held_out_missed", "Missed when held out: the others do not teach them"),
    ("never_found", "Cannot be learned: not flagged although learned from"),
    ("fine_flagged", "Flagged although fine"),
)


def _teaching_reports(visit: Visit, target: KnownObjective) -> list[TeachingReport]:
    """Return the reports of the last teaching of an objective, one for each aligner; empty before it has ended."""
    job = visit.services.jobs.find(_job_name(target))
    # an objective without examples has no subject, and is not taught
    if job is None or job.result is None or target.subject is None:
        return []
    try:
        examples = example_file.present_examples(target.subject)
    except ConfigError:
        # the report is shown nevertheless, without the texts of examples
        examples = Examples(())
    example_by_place = {example.place: example for example in examples.all_examples}
    reports = []
    # one entry for each aligner that was taught this objective
    for result in job.result["objectives"]:
        if not result["taught"]:
            reports.append(TeachingReport(result["aligner"], why=str(result["why"])))
            continue
        problem_examples = _problem_examples(result, example_by_place)
        version = Version.model_validate(result["version"])
        reports.append(
            TeachingReport(result["aligner"], why=None, version=version, result=result, troubles=problem_examples)
        )
    return reports


def _problem_examples(
    result: Mapping[str, Any], example_by_place: Mapping[str, Example]
) -> tuple[tuple[str, list[Example]], ...]:
    """(heading, examples) for each kind of problem in the result for one aligner."""
    return tuple(
        # an example that is no longer in its file, or cannot be read, has no text
        (heading, [example_by_place.get(place, Example(text="", place=place)) for place in result[key]])
        for key, heading in _PROBLEM_HEADINGS
        if result[key]
    )


def _taught_heads(job: ConsoleJob | None) -> list[tuple[Version, bytes]]:
    """(description of the head, its bytes) of each head that a job of teaching made; empty without a result."""
    if job is None or job.result is None:
        return []
    results = [result for result in job.result["objectives"] if result["taught"]]
    return [(Version.model_validate(result["version"]), base64.b64decode(result["head_bytes"])) for result in results]


def _log_change(visit: Visit, target: KnownObjective, change: str) -> None:
    """Log one line for a change: the viewer, the objective and the change; never a text."""
    log.info("console: %s changed objective %s: %s", visit.viewer.name, target.title, change)
