"""Checks for names that do not say what they stand for; `make lint` runs it over `PACKAGES`.

Three kinds are reported: a class name that is defined twice; a function whose name is only a participle, preposition or
adverb (`judged`, `beside`, `lately`); and a variable, parameter or attribute that is only a participle of saying or
having (`told`, `found`, `known`). A function should be named by a verb and its object (`apply_fallback`), a value by a
noun (`corrected_text`).

`names_allowed.json` lists how many of each kind a room (`room_of`) may still have. The numbers may only fall. If
a room has more, the script ends with status 1; `--lower` writes the current numbers where they are smaller.
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (
    "aligner_proxy",
    "bench",
    "demo",
    "models",
    "plugins/aligner_proxy_systems",
    "plugins/fleet/aligner_proxy_fleet",
    "plugins/grounding/aligner_proxy_grounding",
    "plugins/review/aligner_proxy_review",
    "plugins/vllm/aligner_proxy_vllm",
    "scripts",
)
"""What is held to its numbers."""
UNDIVIDED = frozenset({"bench", "demo", "scripts"})
"""Folders at the top that are one room, with all that is below."""
ALLOWANCES = Path(__file__).with_name("names_allowed.json")
KINDS = ("classes", "functions", "variables")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# English words that end like a participle or an adverb but are neither.
NO_PARTICIPLES = _words(
    """
    bed bleed breed embed exceed feed need proceed red seed shed shred sled speed succeed weed anything beginning
    binding bring building ceiling ending embedding evening everything finding grounding heading king mapping
    meaning morning nothing numbering padding reasoning ring setting sibling sing something spring sting string
    swing thing warning wing
    """
)
NO_ADVERBS = _words(
    """
    ally anomaly apply assembly comply family fly imply multiply poly rally rely reply supply tally
    """
)
# Participles that do not end in -ed, without verbs whose participle looks the same (`put`, `read`, `set`, `run`).
IRREGULAR = _words(
    """
    beaten begun bent bitten born borne bought bound bred broken brought built burnt caught chosen dealt done
    drawn driven eaten fallen fed felt flown forbidden forgotten fought found frozen given gone got grown had
    heard held hidden hung kept known laid led left lent lost made meant met paid proven risen said seen sent
    shown slept sold sought spent spoken spun stolen stood struck stuck sunk sworn swept taken taught thought
    thrown told torn understood withheld woken won worn wound woven written
    """
)
PREFIXES = ("un", "re", "over", "under", "mis", "fore", "out")
PREPOSITIONS = _words(
    """
    about above across after against ahead along amid among around as at before behind below beneath beside
    besides between beyond by despite down during except for from in inside into like near nearby of off on onto
    out outside over past per since than through to toward towards under underneath until up upon via with within
    without
    """
)
# Adverbs without -ly, and plurals made from prepositions.
ADVERBS = _words(
    """
    abouts afterwards again alike almost alone already also always anew anywhere apart aside away back backwards
    blockwise downwards elsewhere enough even ever everywhere forth forwards hence here how instead inwards just
    later maybe nears never not now nowhere often once only otherwise outwards perhaps piecewise quite rather
    since so somewhere soon still then there thereby therefore thus together too twice upwards very when where why
    yet
    """
)
# Participles that stand for a value without saying which.
SPEECHLESS = _words(
    """
    asked begun believed brought called chosen drawn ended fed found given gone granted grown heard held judged
    kept known left lost listed made meant met named noted opened owed passed proven refused said seen sent served
    settled shown spent taken taught told tried unknown unseen unsettled wanted written
    """
)
# Names in files or on the wire that users and libraries know, so they must stay; by file.
PUBLIC: dict[str, frozenset[str]] = {
    "aligner_proxy/engine/api.py": frozenset({"taught"}),  # a field of an engine's description
    "aligner_proxy/engine/wire.py": frozenset({"ended", "known"}),  # fields of requests about a session
    "aligner_proxy/gateway/reload.py": frozenset({"refused"}),  # a field of a process's report, a JSON file
    "aligner_proxy/plugins/api.py": frozenset({"judged", "unselected"}),  # a field and a hook that plugins know
    "aligner_proxy/plugins/findings.py": frozenset({"found"}),  # a field of `aligner-proxy doctor --json`
    "aligner_proxy/teaching/store.py": frozenset({"called", "found"}),  # fields of the index of heads
    "aligner_proxy/types/costs.py": frozenset({"written", "refused"}),  # counts of an editor in audit entries
    "bench/stalls.py": frozenset({"asked"}),  # a number in the JSON results
    "models/evaluate/closed_loop.py": frozenset({"found"}),  # a rate in closed_loop.json
    "models/evaluate/editor_cost.py": frozenset({"written"}),  # tokens in editor_cost.json
    "models/evaluate/figure3.py": frozenset({"unseen"}),  # a field of a step in by_objectives.json
    "models/evaluate/forms.py": frozenset({"found"}),  # a field in forms.json, which a stopped run reads again
    "models/evaluate/guards.py": frozenset({"found"}),  # a rate in guards.json
    "models/evaluate/lists.py": frozenset({"found"}),  # a field in lists.json and misses.jsonl
    "models/evaluate/nothing_left.py": frozenset({"left"}),  # a field in left-SEED.json and texts/SEED.jsonl
    "models/evaluate/own_voice.py": frozenset({"found", "taught"}),  # fields in own_voice.json
    "models/evaluate/table2.py": frozenset({"asked", "judged"}),  # fields of a row in by_upstream.json
    "models/evaluate/taught/figures.py": frozenset({"found", "named"}),  # rates in taught.json, counts in kept heads
    "models/evaluate/test_sets.py": frozenset({"gone", "kept"}),  # rates in table.json, and columns of the table
    "models/experiments/disguises.py": frozenset({"found"}),  # a field in disguises.json
    "models/experiments/harm_adjustment.py": frozenset({"kept"}),  # the option --kept
    "models/experiments/head_alone.py": frozenset({"unseen", "written"}),  # in the plan and in head_alone.json
    "models/experiments/head_measures.py": frozenset({"found"}),  # a rate in head_alone.json
    "models/experiments/systems.py": frozenset({"gone", "kept", "refused", "written"}),  # fields in kept results
    "models/systems/baselines/cost.py": frozenset({"fed"}),  # a number in checkpoints and JSON results
    "models/systems/meal/ranks.py": frozenset({"kept"}),  # a rate in the JSON results
    "models/systems/metaalign/adherence.py": frozenset({"lost"}),  # a number in the JSON results
    "plugins/aligner_proxy_systems/meal/selector.py": frozenset({"unselected"}),  # the hook
    "plugins/fleet/aligner_proxy_fleet/shared_heads.py": frozenset({"taught"}),  # a field of a record in Redis
    "plugins/review/aligner_proxy_review/promotion.py": frozenset({"lost"}),  # a number in a replay's JSON results
    "plugins/review/aligner_proxy_review/reviews.py": frozenset({"chosen"}),  # a column of the table of reviews
    "models/train/head_alone.py": frozenset({"held"}),  # a key of recipes in configs/evaluate/head_alone.yaml
    "models/train/taught.py": frozenset({"found"}),  # a number in the JSON results of a training
}


@dataclass(frozen=True)
class Offence:
    """One name that says nothing, and its place."""

    room: str
    kind: str
    place: str
    text: str


@dataclass
class Counts:
    """How many names a room defines, and how many of them are offences."""

    functions: int = 0
    bindings: int = 0
    classes: int = 0
    offences: Counter[str] = field(default_factory=Counter)


def is_participle(word: str) -> bool:
    """Whether `word` is a participle: `judged`, `written`, `rewritten`, `waiting`; but not `feed`, `need`, `string`."""
    if word in NO_PARTICIPLES:
        return False
    if word in IRREGULAR or (len(word) > 4 and word.endswith("ing")) or (len(word) > 3 and word.endswith("ed")):
        return True
    return any(word.startswith(prefix) and word.removeprefix(prefix) in IRREGULAR for prefix in PREFIXES)


def is_adverb(word: str) -> bool:
    """Whether `word` is an adverb or a preposition, such as `lately`, `beside` or `of`."""
    return word in PREPOSITIONS or word in ADVERBS or (word.endswith("ly") and word not in NO_ADVERBS)


def is_wordless(name: str) -> bool:
    """Whether a function's name has neither a verb nor a noun, such as `judged`, `of`, `not_edited`, `until_loaded`."""
    words = name.strip("_").lower().split("_")
    return all(is_participle(word) or is_adverb(word) for word in words)


def room_of(path: Path) -> str:
    """The room of a file by its path below the repository, different for folders of the same name.

    That is a plugin's package, `models/systems` below `models/`, `bench`, or else the folder below the top (`gate`).
    """
    top, *folders = path.parts[:-1]
    if top == "plugins":
        return next(folder for folder in folders if folder.startswith("aligner_proxy_"))
    if not folders or top in UNDIVIDED:
        return top
    return f"models/{folders[0]}" if top == "models" else folders[0]


def is_property(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a method is read like an attribute, and so should be named like a value."""
    names = (ast.unparse(decorator) for decorator in node.decorator_list)
    return any(name.endswith(("property", ".setter", ".getter")) for name in names)


def bindings(nodes: Iterable[ast.AST]) -> Iterator[tuple[int, str]]:
    """Every name that is assigned, with its line: variables, parameters, attributes and properties."""
    for node in nodes:
        match node:
            case ast.arg(arg=name, lineno=line) | ast.Name(id=name, ctx=ast.Store(), lineno=line):
                yield line, name
            case ast.Attribute(attr=name, ctx=ast.Store(), lineno=line):
                yield line, name
            case ast.FunctionDef() | ast.AsyncFunctionDef() if is_property(node):
                yield node.lineno, node.name


def functions(nodes: Iterable[ast.AST]) -> Iterator[tuple[int, str]]:
    """Every function and method with its line, except properties and special methods (`__call__`)."""
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not is_property(node):
            magic = node.name.startswith("__") and node.name.endswith("__")
            if not magic:
                yield node.lineno, node.name


@dataclass
class Survey:
    """The names of all files below some folders."""

    rooms: dict[str, Counts] = field(default_factory=lambda: defaultdict(Counts))
    offences: list[Offence] = field(default_factory=list)
    _classes: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))

    def read_folder(self, folder: Path) -> None:
        """Read every Python file of a folder of the repository, or of another place."""
        base = ROOT if folder.is_relative_to(ROOT) else folder.parent
        for path in sorted(folder.rglob("*.py")):
            self.read_file(path.relative_to(base), path.read_text(encoding="utf-8"))

    def read_file(self, path: Path, source: str) -> None:
        """Read one file, whose path is relative to the repository."""
        nodes = list(ast.walk(ast.parse(source)))
        room = room_of(path)
        public = PUBLIC.get(path.as_posix(), frozenset())
        counts = self.rooms[room]
        for line, name in functions(nodes):
            counts.functions += 1
            if is_wordless(name) and name not in public:
                self._note(room, "functions", f"{path}:{line}", f"function {name}: name it by a verb and its object")
        for line, name in bindings(nodes):
            counts.bindings += 1
            if name.strip("_") in SPEECHLESS and name not in public:
                self._note(room, "variables", f"{path}:{line}", f"variable {name}: name it by what it is")
        for node in nodes:
            if isinstance(node, ast.ClassDef):
                counts.classes += 1
                if node.name not in public:
                    self._classes[node.name.strip("_")].append((room, f"{path}:{node.lineno}"))

    def compare_classes(self) -> None:
        """Record every class whose name another class has, ignoring a leading underscore."""
        for name, places in self._classes.items():
            for room, place in places if len(places) > 1 else ():
                others = ", ".join(other for _, other in places if other != place)
                self._note(room, "classes", place, f"class {name}: defined in {others}, too")

    def _note(self, room: str, kind: str, place: str, text: str) -> None:
        self.offences.append(Offence(room, kind, place, text))
        self.rooms[room].offences[kind] += 1


def excesses(survey: Survey, allowed: dict[str, dict[str, int]]) -> Iterator[str]:
    """The rooms' excesses over their allowance: first the names, then the number that is too large."""
    for room, counts in sorted(survey.rooms.items()):
        for kind in KINDS:
            limit = allowed.get(room, {}).get(kind, 0)
            if counts.offences[kind] > limit:
                for offence in survey.offences:
                    if offence.room == room and offence.kind == kind:
                        yield f"{offence.place}: {offence.text}"
                yield f"{room}: {counts.offences[kind]} {kind} offend, {limit} are allowed"


def lowest_allowances(survey: Survey, allowed: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """The lowest possible allowances: never higher than now, and never higher than what a room has."""
    lower: dict[str, dict[str, int]] = {}
    for room, limits in sorted(allowed.items()):
        present = survey.rooms[room].offences if room in survey.rooms else Counter[str]()
        numbers = {kind: min(limits[kind], present[kind]) for kind in KINDS if kind in limits}
        lower[room] = {kind: number for kind, number in numbers.items() if number}
    return {room: limits for room, limits in lower.items() if limits}


def shares(rooms: Iterable[Counts]) -> str:
    """One line with the share of each kind of offence."""
    together = list(rooms)
    offences: Counter[str] = sum((counts.offences for counts in together), Counter[str]())
    functions_ = sum(counts.functions for counts in together)
    bindings_ = sum(counts.bindings for counts in together)
    classes = sum(counts.classes for counts in together)
    return (
        f"participle functions {100 * offences['functions'] / max(1, functions_):.1f} % "
        f"({offences['functions']} of {functions_}), "
        f"private variables {1000 * offences['variables'] / max(1, bindings_):.1f} per 1,000 "
        f"({offences['variables']} of {bindings_}), "
        f"class names not unique {offences['classes']} of {classes}"
    )


def main(arguments: list[str] | None = None) -> int:
    """Print the offences; return 1 if a room of the package exceeds its allowance."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="*", help="report on these instead of holding the packages to their numbers")
    parser.add_argument("--all", action="store_true", help="print every name that offends, and the shares of each room")
    parser.add_argument("--room", help="with --all: of this room only")
    parser.add_argument("--lower", action="store_true", help="write smaller allowances where rooms have become better")
    options = parser.parse_args(arguments)
    survey = Survey()
    for folder in options.folders or PACKAGES:
        survey.read_folder((ROOT / folder).resolve())
    survey.compare_classes()
    if options.all or options.folders:
        _print_all(survey, options.room)
    errors = [] if options.folders else _hold_to_allowances(survey, lower=options.lower)
    for error in errors:
        print(error)
    print(f"names: {shares(survey.rooms.values())}")
    return 1 if errors else 0


def _print_all(survey: Survey, room: str | None) -> None:
    for offence in survey.offences:
        if room in (None, offence.room):
            print(f"{offence.place}: {offence.text}")
    for name, counts in sorted(survey.rooms.items()):
        if room in (None, name):
            print(f"{name}: {shares([counts])}")


def _hold_to_allowances(survey: Survey, *, lower: bool) -> list[str]:
    """The excesses over the allowances; with `lower` also writes smaller allowances."""
    allowed = json.loads(ALLOWANCES.read_text(encoding="utf-8"))
    best = lowest_allowances(survey, allowed)
    if lower and best != allowed:
        # One room per line, so that a change of one room changes one line.
        lines = ",\n".join(f"  {json.dumps(room)}: {json.dumps(limits)}" for room, limits in best.items())
        ALLOWANCES.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    elif best != allowed:
        print("note: some numbers of names_allowed.json can be lowered: scripts/check_names.py --lower")
    return list(excesses(survey, allowed))


if __name__ == "__main__":
    sys.exit(main())
