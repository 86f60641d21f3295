"""Words that a policies file chooses from, and those that headers, metrics and records use for a result."""

from __future__ import annotations

from enum import StrEnum


class Mode(StrEnum):
    """Mode of a route: deliver corrections, only record them, or correct nothing."""

    ENFORCE = "enforce"
    SHADOW = "shadow"
    OFF = "off"


class StreamMode(StrEnum):
    """Stream mode: `hold` corrects the whole answer, `sentence` each segment, `passthrough` only records."""

    HOLD = "hold"
    SENTENCE = "sentence"
    PASSTHROUGH = "passthrough"


class Verify(StrEnum):
    """Scope of generation: `flagged` replaces flagged segments only, `always` verifies the whole answer as a draft."""

    FLAGGED = "flagged"
    ALWAYS = "always"


class Write(StrEnum):
    """What is written in place of a flagged passage: nothing, so that it is removed; only what a detector head finds
    good, also as an answer to the question; or anything that is not flagged itself."""

    NEVER = "never"
    VERIFIED = "verified"
    FREE = "free"


class OnError(StrEnum):
    """Reaction to a failed correction: deliver the original, answer with an error, or retry."""

    PASSTHROUGH = "passthrough"
    BLOCK = "block"
    RETRY = "retry"


class OnSkip(StrEnum):
    """Reaction to an answer that is skipped by default: judge what can be judged, deliver it, or return an error."""

    JUDGE = "judge"
    PASSTHROUGH = "passthrough"
    BLOCK = "block"


class IfNothingRemains(StrEnum):
    """Reaction when edits would leave nothing: a fixed text, another answer, an error, or the original.

    The other answer (`second_try`) comes from the editor. If it is no better, the fixed text is delivered.
    """

    DECLINE = "decline"
    SECOND_TRY = "second_try"
    BLOCK = "block"
    ORIGINAL = "original"


class SideTreatment(StrEnum):
    """Treatment of one kind of text that comes with an answer: leave, judge, correct or remove it, or return an error.

    Only arguments of tool calls can be corrected. What is flagged in them and cannot be is treated as by `judge`.
    """

    PASS = "pass"
    JUDGE = "judge"
    CORRECT = "correct"
    DROP = "drop"
    BLOCK = "block"


class SideKind(StrEnum):
    """Kinds of text that come with an answer.

    Each is a setting of policies, and the recorded reason when a text of this kind blocked an answer.
    """

    REASONING = "reasoning"
    TOOL_ARGUMENTS = "tool_arguments"
    TOOL_OUTPUT = "tool_output"
    TRANSCRIPTS = "transcripts"
    OTHER_TEXT = "other_text"


class IncomingTreatment(StrEnum):
    """Treatment of one kind of text in a request: leave it unread, report what is flagged, or refuse the request."""

    PASS = "pass"
    REPORT = "report"
    BLOCK = "block"


class IncomingKind(StrEnum):
    """Kinds of text in a request that may be judged; each is a setting of policies."""

    TOOL_RESULTS = "incoming_tool_results"
    HISTORY = "incoming_history"

    @property
    def short_name(self) -> str:
        """The kind in headers and errors, where it is clear that the text is the request's."""
        return self.value.removeprefix("incoming_")


class FailureClass(StrEnum):
    """Classes of failure that a policy distinguishes; each error type names its class (errors.py).

    `judge` means that a second opinion failed; unless the policy blocks, the head's own verdicts then stand.
    `unjudged` means that the policy wants the answer judged (`on_skip: judge`), but it could not be.
    """

    TIMEOUT = "timeout"
    OVERLOAD = "overload"
    ENGINE_DOWN = "engine_down"
    GATE = "gate"
    INVALID_OUTPUT = "invalid_output"
    BUG = "bug"
    JUDGE = "judge"
    UNJUDGED = "unjudged"


class SkipReason(StrEnum):
    """Reason why an answer was not judged. Each value appears in headers, metrics and docs."""

    ENDPOINT = "endpoint"
    MODE_OFF = "mode_off"
    NO_OBJECTIVES = "no_objectives"
    RELOAD_FAILED = "reload_failed"
    """No objectives either, but the file on disk, whose change was refused, may name some."""
    BYPASS = "bypass"
    NOT_SAMPLED = "not_sampled"
    TOOL_CALLS = "tool_calls"
    STRUCTURED_OUTPUT = "structured_output"
    REFUSAL = "refusal"
    TRUNCATED = "truncated"
    FILTERED = "filtered"
    EMPTY = "empty"
    TOO_LONG = "too_long"
    NON_TEXT = "non_text"
    ANNOTATIONS = "annotations"
    INCONSISTENT = "inconsistent"
    LOGPROBS = "logprobs"
    BACKGROUND = "background"
    UPSTREAM_ERROR = "upstream_error"
    SHADOW_FULL = "shadow_full"
    QUOTA = "quota"
    LANGUAGE = "language"


class JsonStrings(StrEnum):
    """Treatment of strings inside a JSON answer: `keep` never edits them, `correct` corrects each long one."""

    KEEP = "keep"
    CORRECT = "correct"


class GateRule(StrEnum):
    """Rules of the gate, in the order in which they are reported when several are broken."""

    EMPTY = "empty"
    LEAK = "template_leak"
    INVENTED_TURN = "invented_turn"
    NEW_REFUSAL = "new_refusal"
    PERSONAL_DATA = "new_personal_data"
    LOST_CODE = "lost_code"
    LOST_CITATION = "lost_citation"
    LOST_NUMBER = "lost_number"
    LOST_ADDRESS = "lost_address"
    LOST_QUOTE = "lost_quote"
    LOST_NAME = "lost_name"
    LOST_ITEM = "lost_list_item"
    LOST_TURN = "lost_turn"
    TORN_PAIR = "torn_pair"
    INVENTED_FACT = "invented_fact"
    INVENTED_QUOTE = "invented_quote"
    SCRIPT = "changed_script"
    LANGUAGE = "changed_language"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    REPEATED_SENTENCE = "said_twice"
    BARE_SPEAKER = "bare_speaker"


class LengthUnit(StrEnum):
    """Unit of a length bound (text/lengths.py)."""

    WORDS = "words"
    SENTENCES = "sentences"
    PARAGRAPHS = "paragraphs"
    CHARACTERS = "characters"


class JudgeKind(StrEnum):
    """Kinds of model that give a second opinion: chat, guard or decision models, or token classifiers of the engine."""

    CHAT = "chat"
    GUARD = "guard"
    DECISIONS = "decisions"
    TOKENS = "tokens"


class GuardForm(StrEnum):
    """Families of guard models, by the published form of their prompts and replies."""

    LLAMA_GUARD = "llama_guard"
    QWEN3GUARD = "qwen3guard"
    GRANITE_GUARDIAN = "granite_guardian"
    SHIELDGEMMA = "shieldgemma"
    GPT_OSS_SAFEGUARD = "gpt_oss_safeguard"
    NEMOTRON = "nemotron"


class AskAbout(StrEnum):
    """Segments about which a judge is asked: unflagged ones near the threshold, flagged ones, or all."""

    DOUBT = "doubt"
    FLAGGED = "flagged"
    ALL = "all"


class Status(StrEnum):
    """Status of one answer, as in the header x-aligner-status."""

    CORRECTED = "corrected"
    UNCHANGED = "unchanged"
    NOT_JUDGED = "not_judged"
    SKIPPED = "skipped"
    SHADOW = "shadow"
    FAILED = "failed"
    PENDING = "pending"


DEFAULT_ALIGNER = "default"
"""The aligner used if a policy names none."""
EMBEDDED = "embedded"
"""The model of the aligner that comes with the distribution aligner-proxy-embedded."""
METAALIGNER = "metaaligner"
"""Name of the default corrector: an aligner that runs on the engine."""
LOCAL_EDITOR = "local"
"""The default editor: the aligner that flags a passage also rewrites it."""
UPSTREAM_EDITOR = "upstream"
"""The editor is the model group that answers the request."""
EDITOR_GROUP_PREFIX = "model:"
"""Prefix of an editor that is a model group: `model:GROUP`."""
BREVITY_OBJECTIVES = frozenset({"concise", "non-repetitive"})
"""Names of the built-in objectives about brevity."""
SAFETY_OBJECTIVES = frozenset({"harmless"})
"""Names of the objectives about safety; an answer that is all harm is never delivered for want of anything else."""
SINGLE_REPLY_OBJECTIVES = frozenset({"helpful", "instruction-following"})
"""Names of the built-in objectives that invented turns violate."""
