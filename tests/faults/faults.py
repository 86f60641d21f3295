"""Which faults are there? Those that a word brings about, those that somebody has to cause, and those of the store."""

from __future__ import annotations

from functools import partial

from aligner_proxy.types import FailureClass
from tests.faults.cells import ALONE, CORRECTED, JUDGED, NOBODY, ORIGINAL, REFUSED, Fault

DOWN = FailureClass.ENGINE_DOWN
BUG = FailureClass.BUG
BAD = FailureClass.INVALID_OUTPUT
GATE = FailureClass.GATE
TIMEOUT = FailureClass.TIMEOUT
FULL = FailureClass.OVERLOAD

hook_fault = partial(Fault, pieces=True, through="hooks")
"""A fault that is tried by the hooks, also on a stream that is released."""

BY_WORD = (
    Fault("engine: never answers", TIMEOUT, "slow", deadline="short", pieces=True),
    Fault("engine: does not answer the first time", TIMEOUT, "slow-once", True, "short", "middle"),
    Fault("engine: sends a byte now and then, without an end", TIMEOUT, "drip", deadline="short"),
    Fault("engine: sends more than anybody can take", BAD, "endless"),
    Fault("engine: sends noise", BAD, "noise", pieces=True),
    Fault("engine: sends noise once", BAD, "noise-once", True, pieces=True),
    Fault("engine: breaks off in mid-answer, once", DOWN, "half-once", True, released=CORRECTED, pieces=True),
    Fault("engine: still loading, for a moment", DOWN, "loading-once", True, released=CORRECTED),
    Fault("engine: out of memory", BUG, "memory", pieces=True),
    Fault("engine: out of memory once", BUG, "memory-once", True),
    Fault("engine: answers another question", GATE, "another", pieces=True),
    Fault("engine: empties the answer, unless more careful", GATE, "nothing", True, released=CORRECTED, pieces=True),
    Fault("engine: adds what nobody said to a good edit", None, "invents", released=GATE, pieces=True),
    Fault("engine: the answer does not fit its window", None, "window", otherwise=ORIGINAL, pieces=True),
)
GONE = Fault("engine: gone", DOWN, deadline="short", pieces=True)
KILLED = Fault("engine: killed in mid-request and started again", DOWN, "held", True, pieces=True)
HUNG = Fault("engine: its process is stopped", TIMEOUT, deadline="short")
NO_HTTP = Fault("engine: something else listens at its address", DOWN, deadline="short", until_deadline=True)
FULL_STAYS = Fault("engine: all places taken", FULL, deadline="short", until_deadline=True)
FULL_ONCE = Fault("engine: all places taken, for a moment", FULL, heals=True)
CAUSED = (GONE, HUNG, NO_HTTP, FULL_STAYS, FULL_ONCE)
BY_UPSTREAM = (
    Fault("upstream: answers 500", None, "up-500", otherwise=ALONE),
    Fault("upstream: dies before its answer begins", None, "up-gone", otherwise=ALONE),
    Fault("upstream: dies in mid-answer", None, "up-dies", otherwise=ALONE, pieces=True),
    Fault("upstream: sends noise in mid-answer", None, "up-noise", otherwise=ALONE),
    Fault("upstream: falls silent in mid-answer", None, "up-hangs", otherwise=ALONE),
)
LEAVES = Fault("client: leaves", None, "held", otherwise=NOBODY, pieces=True)
BAD_FILE = Fault("policies.yaml: breaks while running", None)
NO_FILE = Fault("policies.yaml: disappears while running", None)
THROUGH_THE_PROXY = (*BY_WORD, *CAUSED, KILLED, *BY_UPSTREAM, LEAVES, BAD_FILE, NO_FILE)

NOISY_STORE, TORN_ENTRY, READ_ONLY, DISK_FULL, NO_FOLDER, FORWARD, BACK = (
    Fault(title, None, through="hooks")
    for title in (
        "cache: its file is noise",
        "cache: an entry has a bit flipped",
        "cache: read-only",
        "cache: the disk is full",
        "cache: its folder is a file",
        "clock: jumps a day ahead in mid-request",
        "clock: jumps a day back in mid-request",
    )
)
NOISY_AUDIT, LOCKED_AUDIT, FULL_AUDIT, NO_AUDIT_FOLDER = (
    Fault(title, None, through="hooks")
    for title in (
        "audit: its file is noise",
        "audit: another process locks its file",
        "audit: the disk is full",
        "audit: its folder is a file",
    )
)
REDIS_GONE, REDIS_SILENT, REDIS_FULL, REDIS_REPLICA, REDIS_CUT, REDIS_ALTERED, REDIS_FOREIGN, REDIS_LEASE = (
    Fault(title, None, through="hooks")
    for title in (
        "redis: gone",
        "redis: its process is stopped",
        "redis: its memory is full",
        "redis: it has become a replica and takes no writes",
        "redis: an entry is cut off",
        "redis: an entry has a bit flipped",
        "redis: an entry is another program's",
        "redis: the gateway that computes the correction is dead",
    )
)
AUDIT_AWAY, AUDIT_SILENT = (
    Fault(title, None, through="hooks")
    for title in ("audit: its PostgreSQL is gone", "audit: its PostgreSQL takes connections and says nothing")
)
_SERVERS = (
    *(REDIS_GONE, REDIS_SILENT, REDIS_FULL, REDIS_REPLICA, REDIS_CUT, REDIS_ALTERED, REDIS_FOREIGN, REDIS_LEASE),
    *(AUDIT_AWAY, AUDIT_SILENT),
)
_STORES = (NOISY_STORE, TORN_ENTRY, READ_ONLY, DISK_FULL, NO_FOLDER)
_CLOCK = (FORWARD, BACK)
EDITOR_SLOW = hook_fault("editor: does not answer in time", None, deadline="short")
EDITOR_DOWN, EDITOR_FULL, EDITOR_NOISE, EDITOR_CUT, EDITOR_SAME, EDITOR_AGAIN, EDITOR_LONG = (
    hook_fault(title, None)
    for title in (
        "editor: answers 500",
        "editor: answers 429",
        "editor: replies without a form",
        "editor: its reply is cut off",
        "editor: writes the same once more",
        "editor: insults in other words",
        "editor: writes more than it may",
    )
)
EDITOR_QUOTA = hook_fault("editor: the tenant's quota is spent", None, otherwise=ORIGINAL, released=ORIGINAL)
EDITOR_LEFT = hook_fault("client: leaves while the editor writes", None, otherwise=NOBODY)
BY_EDITOR = (EDITOR_DOWN, EDITOR_FULL, EDITOR_NOISE, EDITOR_CUT, EDITOR_SAME, EDITOR_AGAIN, EDITOR_LONG)
_EDITOR = (EDITOR_SLOW, *BY_EDITOR, EDITOR_QUOTA, EDITOR_LEFT)
JUDGE = FailureClass.JUDGE
JUDGE_SLOW = hook_fault("judge: does not answer in time", JUDGE, deadline="short")
JUDGE_DOWN, JUDGE_FULL, JUDGE_NOISE, JUDGE_CUT, JUDGE_DOUBLES, JUDGE_CONTRADICTS, JUDGE_OTHERS, JUDGE_QUOTES = (
    hook_fault(title, JUDGE)
    for title in (
        "judge: answers 500",
        "judge: answers 429",
        "judge: replies without a form",
        "judge: its reply is cut off",
        "judge: gives two verdicts on one sentence",
        "judge: gives a verdict that its probability contradicts",
        "judge: gives verdicts on sentences that nobody asked about",
        "judge: repeats what it was asked",
    )
)
JUDGE_DOWN_ONCE, JUDGE_NOISE_ONCE = (
    hook_fault(title, JUDGE, heals=True) for title in ("judge: answers 500 once", "judge: replies without a form once")
)
JUDGE_QUOTA = hook_fault("judge: the tenant's quota is spent", JUDGE)
JUDGE_CLEARS = hook_fault("judge: lies that nothing is wrong", None)
JUDGE_CLEARS_ALL = hook_fault("judge: lies so under `ask: all`", None, otherwise=ORIGINAL, released=ORIGINAL)
JUDGE_FLAGS = hook_fault("judge: finds fault with one more sentence", None, otherwise=JUDGED, released=JUDGED)
JUDGE_LEFT = hook_fault("client: leaves while the judge thinks", None, otherwise=NOBODY)
BY_JUDGE = (
    *(JUDGE_DOWN, JUDGE_FULL, JUDGE_NOISE, JUDGE_CUT, JUDGE_DOUBLES, JUDGE_CONTRADICTS, JUDGE_OTHERS, JUDGE_QUOTES),
    *(JUDGE_DOWN_ONCE, JUDGE_NOISE_ONCE, JUDGE_CLEARS, JUDGE_CLEARS_ALL, JUDGE_FLAGS),
)
_JUDGE = (*BY_JUDGE, JUDGE_SLOW, JUDGE_QUOTA, JUDGE_LEFT)
TOKENS_SLOW = hook_fault("token classifier: does not answer in time", JUDGE, deadline="short")
TOKENS_MISSING, TOKENS_DOWN, TOKENS_FULL, TOKENS_BUG, TOKENS_WINDOW, TOKENS_NOISE = (
    hook_fault(title, JUDGE)
    for title in (
        "token classifier: the engine has none of that name",
        "token classifier: its engine cannot be reached",
        "token classifier: all places taken",
        "token classifier: fails with an error of its own",
        "token classifier: the answer does not fit its window",
        "token classifier: sends something other than labels",
    )
)
TOKENS_DOWN_ONCE = hook_fault("token classifier: its engine cannot be reached once", JUDGE, heals=True)
TOKENS_OUTSIDE = hook_fault("token classifier: labels only white space and what is no answer", None)
TOKENS_FLAGS = hook_fault(
    "token classifier: finds fault with one more sentence",
    None,
    otherwise=JUDGED,
    released=JUDGED,
)
BY_TOKENS = (
    *(TOKENS_MISSING, TOKENS_DOWN, TOKENS_FULL, TOKENS_BUG, TOKENS_WINDOW, TOKENS_NOISE),
    *(TOKENS_DOWN_ONCE, TOKENS_OUTSIDE, TOKENS_FLAGS),
)
_TOKENS = (*BY_TOKENS, TOKENS_SLOW)
NO_PAGE, NOISY_PAGE, LONG_PAGE, EMPTY_PAGE, OTHER_PAGE, CHANGED_PAGE = (
    hook_fault(title, None)
    for title in (
        "references: the file disappears while running",
        "references: the file becomes noise",
        "references: the file grows beyond the bound",
        "references: the file is emptied",
        "references: another file of the list contradicts it from now on",
        "references: the file changes in mid-answer",
    )
)
BAD_PAGES = (NO_PAGE, NOISY_PAGE, LONG_PAGE, EMPTY_PAGE, OTHER_PAGE)
NO_GRANT = hook_fault("references: a header of a tenant that may not bring any", None, otherwise=REFUSED)
NOISY_HEADER, LONG_HEADER = (
    hook_fault(title, None, otherwise=ORIGINAL)
    for title in ("references: a header that is no base64", "references: a header beyond the bound")
)
PAGE_SLOW = hook_fault("references: taking them apart takes too long", TIMEOUT, deadline="short")
PAGE_BUG = hook_fault("references: reading them fails", BUG)
ENGINE_GONE = hook_fault("references: the engine is gone", DOWN, deadline="short")
NO_ENGINE = hook_fault("references: the engine is gone, and there are no objectives", None)
PAGE_LEFT = hook_fault("client: leaves while references are taken apart", None, otherwise=NOBODY)
BY_HEADER = (NO_GRANT, NOISY_HEADER, LONG_HEADER)
_REFERENCES = (*BAD_PAGES, CHANGED_PAGE, *BY_HEADER, PAGE_SLOW, PAGE_BUG, ENGINE_GONE, NO_ENGINE, PAGE_LEFT)
FACT_JUDGE_SLOW = hook_fault("judge of facts: does not answer in time", JUDGE, deadline="short")
FACT_JUDGE_DOWN, FACT_JUDGE_NOISE, FACT_JUDGE_CUT, FACT_JUDGE_OTHERS, FACT_JUDGE_INVENTS, FACT_JUDGE_QUOTES = (
    hook_fault(title, JUDGE)
    for title in (
        "judge of facts: answers 500",
        "judge of facts: replies without a form",
        "judge of facts: its reply is cut off",
        "judge of facts: gives verdicts on facts that nobody asked about",
        "judge of facts: chooses a value that nobody offered",
        "judge of facts: repeats what it was asked",
    )
)
FACT_JUDGE_DOWN_ONCE = hook_fault("judge of facts: answers 500 once", JUDGE, heals=True)
FACT_JUDGE_QUOTA = hook_fault("judge of facts: the tenant's quota is spent", JUDGE)
FACT_JUDGE_CLEARS = hook_fault("judge of facts: lies that every fact is right", None)
FACT_JUDGE_CHOOSES = hook_fault(
    "judge of facts: says which fact is contradicted",
    None,
    otherwise=JUDGED,
    released=JUDGED,
)
FACT_JUDGE_LEFT = hook_fault("client: leaves while the judge of facts thinks", None, otherwise=NOBODY)
BY_FACT_JUDGE = (
    *(FACT_JUDGE_DOWN, FACT_JUDGE_NOISE, FACT_JUDGE_CUT, FACT_JUDGE_OTHERS, FACT_JUDGE_INVENTS, FACT_JUDGE_QUOTES),
    *(FACT_JUDGE_DOWN_ONCE, FACT_JUDGE_CLEARS, FACT_JUDGE_CHOOSES),
)
_FACT_JUDGE = (*BY_FACT_JUDGE, FACT_JUDGE_SLOW, FACT_JUDGE_QUOTA, FACT_JUDGE_LEFT)
_AUDITS = (NOISY_AUDIT, LOCKED_AUDIT, FULL_AUDIT, NO_AUDIT_FOLDER)
DESK_DOWN, DESK_SLOW, DESK_500, DESK_REDIRECTS, DESK_ENDLESS = (
    hook_fault(title, None)
    for title in (
        "hand_off: nobody listens at the webhook's address",
        "hand_off: the webhook does not answer",
        "hand_off: the webhook answers 500",
        "hand_off: the webhook sends elsewhere (302)",
        "hand_off: the webhook answers without an end",
    )
)
BY_WEBHOOK = (DESK_DOWN, DESK_SLOW, DESK_500, DESK_REDIRECTS, DESK_ENDLESS)
BY_HOOKS = (
    *_STORES,
    *_CLOCK,
    *_AUDITS,
    *_SERVERS,
    *_EDITOR,
    *_JUDGE,
    *_TOKENS,
    *_REFERENCES,
    *_FACT_JUDGE,
    *BY_WEBHOOK,
)
ALL = (*THROUGH_THE_PROXY, *BY_HOOKS)
