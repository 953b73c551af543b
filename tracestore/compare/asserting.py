"""A regression test of mechanisms: the candidate gives the same answers, but does it still reach them in the same way?

1. Match the predictions of baseline and candidate by prompt, method and place in the answer.
2. A prediction whose answer changed is reported apart: its mechanism may well differ.
3. Of the others, measure how far the shares of driving tokens, heads and motifs moved (total variation: 0 the same, 1 nothing in common)
   and compare each with its threshold.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal
from xml.etree import ElementTree

from tracestore.compare.comparing import Pair, head_name, match, prompt_key, same_answer
from tracestore.compare.measures import rank_biased_overlap, ranked, total_variation
from tracestore.compare.profiles import Profile
from tracestore.errors import BadInputError

Verdict = Literal["ok", "shifted", "answer changed"]

THRESHOLD: Final = 0.25


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Largest total variation allowed of the shares of tokens, heads and motifs; smallest rank-biased overlap of drivers; all 0 to 1."""

    tokens: float = THRESHOLD
    heads: float = THRESHOLD
    motifs: float = THRESHOLD
    overlap: float = 0.0

    def check(self) -> None:
        """Raise BadInputError for a threshold outside 0 to 1."""
        for name, value in asdict(self).items():
            if not 0 <= value <= 1:
                raise BadInputError(f"the threshold for {name} is {value}: it lies between 0 and 1")


@dataclass(frozen=True, slots=True)
class Case:
    """One matched prediction: how far its mechanism moved, and why it fails. `motif_shift` is None where one side stores no paths."""

    name: str
    baseline_output: str
    candidate_output: str
    baseline_said: str
    candidate_said: str
    verdict: Verdict
    token_shift: float
    driver_overlap: float
    head_shift: float
    motif_shift: float | None
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AssertReport:
    """Every matched prediction, and how many had no counterpart."""

    baseline: str
    candidate: str
    thresholds: Thresholds
    cases: tuple[Case, ...]
    only_baseline: int
    only_candidate: int

    def count(self, verdict: Verdict) -> int:
        """Count the cases with a verdict."""
        return sum(case.verdict == verdict for case in self.cases)

    @property
    def passed(self) -> bool:
        """Did no mechanism shift beyond its threshold? (Changed answers are for other tests to judge.)"""
        return self.count("shifted") == 0

    def to_dict(self) -> dict[str, Any]:
        """Give plain values for JSON."""
        counts = {name.replace(" ", "_"): self.count(name) for name in ("ok", "shifted", "answer changed")}
        return {"passed": self.passed, **counts, **asdict(self)}

    def to_junit(self) -> str:
        """Write JUnit XML: a shifted mechanism is a failure, a changed answer a skipped test."""
        sizes = {"tests": len(self.cases), "failures": self.count("shifted"), "skipped": self.count("answer changed"), "errors": 0}
        suite = ElementTree.Element("testsuite", {"name": "tracestore assert", **{name: str(value) for name, value in sizes.items()}})
        properties = ElementTree.SubElement(suite, "properties")
        stated = {"baseline": self.baseline, "candidate": self.candidate, "only_baseline": self.only_baseline}
        stated |= {"only_candidate": self.only_candidate, **{f"threshold_{name}": value for name, value in asdict(self.thresholds).items()}}
        for name, value in stated.items():
            ElementTree.SubElement(properties, "property", {"name": name, "value": _xml(str(value))})
        for case in self.cases:
            found = ElementTree.SubElement(suite, "testcase", {"classname": "tracestore.mechanism", "name": _xml(case.name)})
            if case.verdict == "shifted":
                ElementTree.SubElement(found, "failure", {"type": "MechanismShift", "message": _xml("; ".join(case.reasons))})
            elif case.verdict == "answer changed":
                message = f"the answer changed: {case.baseline_said!r} became {case.candidate_said!r}"
                ElementTree.SubElement(found, "skipped", {"message": _xml(message)})
        ElementTree.indent(suite)
        return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def assert_mechanism(
    baseline: Iterable[Profile], candidate: Iterable[Profile], thresholds: Thresholds | None = None, *, names: tuple[str, str]
) -> AssertReport:
    """Compare a candidate's predictions with the baseline's. Raises BadInputError when nothing matches or a prompt is ambiguous."""
    thresholds = thresholds or Thresholds()
    thresholds.check()
    first, second = list(baseline), list(candidate)
    pairs = match(first, second, prompt_key, names)
    cases = tuple(sorted((_judge(pair, thresholds) for pair in pairs), key=lambda case: (case.name, case.baseline_output)))
    return AssertReport(names[0], names[1], thresholds, cases, len(first) - len(pairs), len(second) - len(pairs))


def _judge(pair: Pair, thresholds: Thresholds) -> Case:
    one, other = pair
    tokens, heads = total_variation(one.tokens, other.tokens), total_variation(one.heads, other.heads)
    motifs = total_variation(one.motifs, other.motifs) if one.motifs and other.motifs else None
    overlap = rank_biased_overlap(ranked(one.tokens), ranked(other.tokens))
    reasons = []
    if tokens > thresholds.tokens:
        moved = _largest_move(one.tokens, other.tokens)
        where = f"{moved} {one.texts.get(moved, '')!r}"
        reasons.append(f"{tokens:.2f} of the token shares moved (allowed {thresholds.tokens:.2f}), most at {where}")
    if overlap < thresholds.overlap:
        reasons.append(f"the ranking of drivers overlaps by {overlap:.2f} (at least {thresholds.overlap:.2f})")
    if heads > thresholds.heads:
        moved_head = head_name(_largest_move(one.heads, other.heads))
        reasons.append(f"{heads:.2f} of the head shares moved (allowed {thresholds.heads:.2f}), most at {moved_head}")
    if motifs is not None and motifs > thresholds.motifs:
        reasons.append(
            f"{motifs:.2f} of the motif shares moved (allowed {thresholds.motifs:.2f}), most at {_largest_move(one.motifs, other.motifs)}"
        )
    verdict: Verdict = "answer changed" if not same_answer(one, other) else "shifted" if reasons else "ok"
    return Case(one.name, one.output_id, other.output_id, one.said, other.said, verdict, tokens, overlap, heads, motifs, tuple(reasons))


def _largest_move(one: Any, other: Any) -> Any:
    return max(one.keys() | other.keys(), key=lambda key: (abs(one.get(key, 0.0) - other.get(key, 0.0)), str(key)))


def _xml(text: str) -> str:
    """Escape the characters that XML 1.0 cannot hold."""
    return "".join(c if c in "\t\n\r" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c > "\uffff" else repr(c)[1:-1] for c in text)
