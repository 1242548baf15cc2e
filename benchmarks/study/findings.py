"""The paper's findings and our own claims, each asked of the rows by a rule that was fixed before.

Every finding is a number of comparisons of medians within one workload and batch size. A
comparison holds, doesn't, or is undecided: where neither side reached the target. A finding of the
paper is confirmed if at least three quarters of the decided comparisons hold, a claim of our own
if all do; none is if fewer than half of the comparisons are decided.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from study.plan import FACTORS, NO_ECHO, TASKS, Setting
from study.summary import Row, Rows, Spread, unechoed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

SHARE_TO_CONFIRM = 0.75
LEAST_SHARE_DECIDED = 0.5


class Comparison(NamedTuple):
    """One comparison.

    Attributes:
        setting: Which one was asked.
        holds: Whether the statement holds; None: undecided.
        ratio: The figure that decided, if it is a ratio of fresh examples.
    """

    setting: Setting
    holds: bool | None
    ratio: float | None = None


class Finding(NamedTuple):
    """A statement and how to ask it.

    Attributes:
        statement: What is claimed.
        rule: What is compared, in words.
        share: The share of the decided comparisons that must hold.
        compare: Makes the comparisons, from rows of settings.
    """

    statement: str
    rule: str
    share: float
    compare: Callable[[Any], Iterator[Comparison]]


class Answer(NamedTuple):
    """What the study says of a finding.

    Attributes:
        verdict: "confirmed", "not confirmed" or "not tested".
        num_holding: How many comparisons hold.
        num_decided: How many hold or don't.
        num_asked: How many there are.
        comparisons: All of them.
    """

    verdict: str
    num_holding: int
    num_decided: int
    num_asked: int
    comparisons: list[Comparison]


def answer(finding: Finding, rows: Mapping[Setting, Any]) -> Answer:
    """Asks the rows."""
    comparisons = list(finding.compare(rows))
    decided = [comparison for comparison in comparisons if comparison.holds is not None]
    holding = sum(comparison.holds is True for comparison in decided)
    if not decided or len(decided) < LEAST_SHARE_DECIDED * len(comparisons):
        verdict = "not tested"
    elif holding >= finding.share * len(decided):
        verdict = "confirmed"
    else:
        verdict = "not confirmed"
    return Answer(verdict, holding, len(decided), len(comparisons), comparisons)


def as_json(finding: Finding, found: Answer) -> dict[str, Any]:
    """An answer as JSON, with the settings for which the finding doesn't hold."""
    return {
        "statement": finding.statement,
        "verdict": found.verdict,
        "num_holding": found.num_holding,
        "num_decided": found.num_decided,
        "num_asked": found.num_asked,
        "not_holding": [
            {**comparison.setting._asdict(), "ratio": _finite(comparison.ratio)}
            for comparison in found.comparisons
            if comparison.holds is False
        ],
    }


def _finite(ratio: float | None) -> float | None:
    return None if ratio is None or math.isinf(ratio) else ratio


def less(setting: Setting, value: float, other: float, *, or_equal: bool = False) -> Comparison:
    """Whether a number of fresh examples, a ratio of two, or a time is below another."""
    if math.isinf(value) and math.isinf(other):
        return Comparison(setting, None)
    holds = value < other or (or_equal and value == other)
    return Comparison(setting, holds, value / other if math.isfinite(other) else 0.0)


def _fresh_against(
    rows: Rows, methods: tuple[str, ...], other: Callable[[Setting], Setting]
) -> Iterator[Comparison]:
    """Whether settings of these methods need fewer fresh examples than another of each."""
    for setting, row in rows.items():
        if setting.method in methods and other(setting) in rows:
            yield less(setting, row.fresh.median, rows[other(setting)].fresh.median)


def _with_method(method: str) -> Callable[[Setting], Setting]:
    return lambda setting: setting._replace(method=method)


def _larger_batches(rows: Rows) -> Iterator[Comparison]:
    for setting, row in rows.items():
        smaller, larger = TASKS[setting.task].sizes
        other = setting._replace(batch_size=smaller.batch_size)
        needed = {unechoed(setting), other, unechoed(other)}
        if setting.method != "batch" or setting.batch_size != larger.batch_size:
            continue
        if needed <= rows.keys():
            yield less(
                setting,
                _relative(row.fresh.median, rows[unechoed(setting)].fresh.median),
                _relative(rows[other].fresh.median, rows[unechoed(other)].fresh.median),
            )


def _falling_off(rows: Rows) -> Iterator[Comparison]:
    least, middle, most = FACTORS
    for setting in rows:
        if setting.factor != most or setting.method == NO_ECHO:
            continue
        chain = [unechoed(setting), *(setting._replace(factor=e) for e in (least, middle))]
        if all(other in rows for other in chain):
            one, two, four = (rows[other].fresh.median for other in chain)
            eight = rows[setting].fresh.median
            yield less(setting, _relative(two, one), _relative(eight, four))


def _relative(value: float, base: float) -> float:
    return math.inf if math.isinf(value) or math.isinf(base) else value / base


def _no_worse(quality: Callable[[Row], Spread]) -> Callable[[Rows], Iterator[Comparison]]:
    """Whether the median quality is at least that of the worst run of e = 1."""

    def compare(rows: Rows) -> Iterator[Comparison]:
        for setting, row in rows.items():
            if setting.method != NO_ECHO and (base := rows.get(unechoed(setting))):
                task, unechoed_quality = TASKS[setting.task], quality(base)
                worst = task.worst([unechoed_quality.least, unechoed_quality.most])
                yield Comparison(setting, task.is_good(quality(row).median, worst))

    return compare


def _half_the_fresh(rows: Rows) -> Iterator[Comparison]:
    for setting in rows:
        echoes = (setting.method, setting.factor) == ("example_before", 4)
        if not echoes or setting.task not in ("digits", "photographs"):
            continue
        yield from relative_fresh(rows, setting, 0.5)


def relative_fresh(
    rows: Mapping[Setting, Any], setting: Setting, bound: float
) -> Iterator[Comparison]:
    """Whether a setting's fresh examples over those of e = 1 are at most `bound`."""
    if base := rows.get(unechoed(setting)):
        # Where e = 1 didn't reach the target, all that is known is that it needs more than F.
        known = min(base.fresh.median, setting.batch_size * setting.size.num_steps)
        ratio = rows[setting].fresh.median / known
        undecided = ratio > bound and math.isinf(base.fresh.median)
        yield Comparison(setting, None if undecided else ratio <= bound, ratio)


PAPER = (
    Finding(
        "Echoing reduces the fresh examples needed to reach the target.",
        "every kind of echoing, e = 2, 4, 8: fewer than e = 1",
        SHARE_TO_CONFIRM,
        lambda rows: _fresh_against(rows, tuple({s.method for s in rows} - {NO_ECHO}), unechoed),
    ),
    Finding(
        "Batch echoing helps less than example echoing.",
        "example echoing (images: before augmentation): fewer fresh examples than batch echoing "
        "without a shuffle buffer at the same e",
        SHARE_TO_CONFIRM,
        lambda rows: _fresh_against(rows, ("example", "example_before"), _with_method("batch")),
    ),
    Finding(
        "Echoing before augmentation beats echoing after it.",
        "example echoing before: fewer fresh examples than after at the same e",
        SHARE_TO_CONFIRM,
        lambda rows: _fresh_against(rows, ("example_before",), _with_method("example_after")),
    ),
    Finding(
        "A larger shuffle buffer helps.",
        "batch echoing with a shuffle buffer: fewer fresh examples than without at the same e",
        SHARE_TO_CONFIRM,
        lambda rows: _fresh_against(rows, ("batch_shuffled",), _with_method("batch")),
    ),
    Finding(
        "Batch echoing does better with larger batches.",
        "fresh examples relative to e = 1 of the same batch size: fewer with the larger batches "
        "at the same e",
        SHARE_TO_CONFIRM,
        _larger_batches,
    ),
    Finding(
        "Echoing does not harm the final quality.",
        "quality at equal fresh examples: the median is no worse than the worst run of e = 1",
        SHARE_TO_CONFIRM,
        _no_worse(lambda row: row.equal_fresh),
    ),
    Finding(
        "The benefit falls off as e grows.",
        "going from e = 1 to 2 saves a larger part of the fresh examples than from 4 to 8",
        SHARE_TO_CONFIRM,
        _falling_off,
    ),
)

OWN = (
    Finding(
        "Example echoing before augmentation at e = 4 needs at most half of the fresh examples of "
        "e = 1 on both image tasks.",
        "medians, both batch sizes",
        1.0,
        _half_the_fresh,
    ),
    Finding(
        "The final quality at equal steps is no worse than e = 1's spread.",
        "every kind of echoing, e = 2, 4, 8: the median is no worse than the worst run of e = 1",
        1.0,
        _no_worse(lambda row: row.equal_steps),
    ),
)
