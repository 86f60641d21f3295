"""What every test needs before anything imports LiteLLM: no network, no noise from its models, a place for files."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import gc
import os
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Generator, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.support.sampling import SAMPLED, examples, sample

for name in (
    "HF_HUB_DISABLE_TELEMETRY",
    "LITELLM_LOCAL_BLOG_POSTS",
    "LITELLM_LOCAL_MODEL_COST_MAP",
    "LITELLM_LOCAL_POLICY_TEMPLATES",
):
    os.environ.setdefault(name, "True")
# Triton decides when it is first imported, by whichever library, whether it interprets kernels on the CPU.
os.environ.setdefault("TRITON_INTERPRET", "1")


def _use_own_folder_for_temporary_files() -> None:
    """What tests and their processes leave in the folder for temporary files ends with the run; pytest's own stays."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return  # in that of the process that started it
    os.environ["PYTEST_DEBUG_TEMPROOT"] = tempfile.gettempdir()
    folder = tempfile.mkdtemp(prefix="tests-")  # short: sockets lie in it
    os.chmod(folder, 0o711)  # PostgreSQL runs as another user, who has to get to its own folder inside
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["TMPDIR"] = tempfile.tempdir = folder


_use_own_folder_for_temporary_files()


if settings.get_current_profile_name() == "default":  # Hypothesis has one of its own for CI
    # On a busy machine anything is slow; what takes too long is the test runner's business.
    settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("here")
settings.register_profile("fuzz")  # by `make fuzz`: tests/gateway/test_untouched.py tries more then


def pytest_addoption(parser: pytest.Parser) -> None:
    """Everything that pytest is asked for runs, unless it is told to take a sample."""
    parser.addoption("--sample", action="store_true", help="of tests with many cases run some, as `make test` does")


def pytest_configure(config: pytest.Config) -> None:
    """Say to test files that only a sample runs, and to Python that a warning of Pydantic's is nothing of ours."""
    if config.getoption("sample"):
        os.environ[SAMPLED] = "1"
        _let_hypothesis_sample()
    # About a TypedDict of LiteLLM, when it first builds its models.
    config.addinivalue_line("filterwarnings", "ignore:.*`ReadOnly` qualifier:UserWarning")


def _let_hypothesis_sample() -> None:
    """Fewer examples where a test names no number; that too many are filtered only their full number can say."""
    if settings.get_current_profile_name() == "here":
        here = settings.get_profile("here")
        unchecked = [*here.suppress_health_check, HealthCheck.filter_too_much]
        settings.register_profile(
            "sample", here, max_examples=examples(here.max_examples), suppress_health_check=unchecked
        )
        settings.load_profile("sample")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What the test files import lives as long as the run: no collection looks for garbage in it, now or later."""
    gc.disable()
    try:
        with _compile_once():
            return (yield)
    finally:
        gc.freeze()
        gc.enable()


@contextlib.contextmanager
def _compile_once() -> Iterator[None]:
    """In a fresh checkout or environment let one worker of a run import and compile everything before the others.

    Workers that begin together would each compile it all, because none finds yet what another one has compiled.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ or sys.dont_write_bytecode:
        yield
        return
    with open(Path(tempfile.gettempdir()) / "compilation.lock", "w") as lock:  # the folder of this run
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_compiled():
            fcntl.flock(lock, fcntl.LOCK_UN)
        yield


def _is_compiled() -> bool:
    """Whether tests and libraries have been imported here before: pytest and Python keep what they compiled."""
    libraries = [find_spec("litellm"), find_spec("torch")]
    is_kept = [Path(library.cached).exists() for library in libraries if library is not None and library.cached]
    return all(is_kept) and any(Path(__file__).parent.glob("text/__pycache__/test_*-pytest-*.pyc"))


_unfreeze = gc.unfreeze
_unfrozen = threading.Event()
"""Set when a guardrail that ended let Python search everything for garbage again, which then takes a second."""


def _note_unfreezing() -> None:
    _unfreeze()
    _unfrozen.set()


gc.unfreeze = _note_unfreezing


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Let the guardrails go that nobody holds, and behind the tests of proxies the proxies."""
    _end_threads()
    if _unfrozen.is_set():
        _unfrozen.clear()
        gc.freeze()
    is_last = nextitem is None or nextitem.path.parent.name not in _PROXY_FOLDERS
    if item.path.parent.name in _PROXY_FOLDERS and is_last:
        from tests.e2e.processes import stop_proxies

        stop_proxies(item.config)


_MORE_THREADS = 120
"""So many new ones may be threads of guardrails that nobody holds any more: each looks at its files once a second."""
_threads_left = 0


def _end_threads() -> None:
    """End such threads. Guardrails are in cycles, and Python looks for old ones only when much more is new."""
    global _threads_left
    count = threading.active_count()
    _threads_left = min(_threads_left, count)
    if count > _threads_left + _MORE_THREADS:
        gc.unfreeze()  # what a guardrail froze when it started holds the ones before it
        gc.collect()
        _threads_left = count  # they end within a second


@pytest.fixture(scope="session")
def weights_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which real weights are prepared once, for all tests that use them and in all workers of a run."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "weights"


_OF_PROXIES = ("clients", "conformance", "e2e")
"""Folders in which every test is one of a real proxy."""
_PROXY_FOLDERS = {*_OF_PROXIES, "attacks"}
"""Folders with tests of real proxies, which stop behind the last of them."""
_OF_MODELS = Path(__file__).parent / "models"
"""The tests of what makes and measures aligners, in which few do not compute."""
_COMPUTES = re.compile(
    r"^\s*(?:from|import) (?:peft|torch|transformers)\b|\btiny\.(?:adapter|aligner|model|runner|save|together)\b",
    re.MULTILINE,
)
"""How a test file says that it computes with a model: by torch itself, or by the small model of the engine's tests."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what needs a model or a proxy, which `make check` leaves out; skip what only `make test-long` runs."""
    if config.getoption("sample"):
        chosen = set(sample(items))
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = [item for item in items if item in chosen]
    for item in items:
        if item.path.parent.name in _OF_PROXIES:
            item.add_marker(pytest.mark.e2e)
        if item.path.is_relative_to(_OF_MODELS) or _computes(item.path):
            item.add_marker(pytest.mark.model)
        if item.get_closest_marker("long") and os.environ.get("LONG") != "1":
            item.add_marker(pytest.mark.skip(reason="by `make test-long` only"))


@functools.cache
def _computes(path: Path) -> bool:
    return _COMPUTES.search(path.read_text(encoding="utf-8")) is not None


_TOGETHER = {"clients": "SHARED", "conformance": "SHARED", "faults": "faults", "fleet": "fleet"}
"""Folders whose files fill one table together or share a test bed, and what they share with others."""
_PROXIES = re.compile(r"^DEPLOYMENT = (SHARED$)?", re.MULTILINE)
"""How a test file says that it needs real proxies, and whether it shares them with others."""


class Together(LoadScopeScheduling):
    """Which tests one of several workers runs: those of a file, or of all files that share what takes long to start."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return _TOGETHER.get(Path(path).parts[1]) or _scope_of_proxies(self.config.rootpath / path) or path


@functools.cache
def _scope_of_proxies(file: Path) -> str | None:
    """What the files with real proxies have in common: with the shared ones, or with others; None for other files.

    A worker that starts proxies imports LiteLLM once more for them (e2e/warm_litellm.py), so two of them start all.
    """
    if file.parent.name not in ("attacks", "e2e"):
        return None
    proxies = _PROXIES.search(file.read_text(encoding="utf-8"))
    if proxies and proxies[1]:
        return "SHARED"
    return "other proxies" if proxies or file.parent.name == "e2e" else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Together:
    """Asked by pytest-xdist; groups by mark, which it has itself, do nothing under pytest 9."""
    return Together(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A report has to reach the main process as UTF-8, whatever was logged; fuzzed texts hold lone surrogates."""
    report = yield
    report.sections = [(name, text.encode(errors="replace").decode()) for name, text in report.sections]
    return report
