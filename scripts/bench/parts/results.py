"""Single results, and what they come to: the order of runs, pairs, medians, spreads, and the rule by which a row of scheduling passes.

A result is one JSON object a line: `row`, `server` (or the variant), `pass` (from 0 on), and `result` (figures by name) or `hole` (why there
is none). The first line of a run is `run`, with what it was made on.

Knows nothing of how anything is measured or shown.
"""

import json
import statistics
from dataclasses import dataclass

MOVED_MAX = 0.20
JUDGED_PAIRS_MIN = 9
# When the quartiles of the ratios are further apart than no effect (1) is from nothing, their distance would allow everything.
SPREAD_MAX = 1.0
HOLES_MAX = 2  # of one row on one server; then the rest of its passes is left out


def order(names, number):
    """The order of pass `number`: A B, then B A, and so on; so what drifts on the machine hits all alike."""
    return list(names) if number % 2 == 0 else list(reversed(names))


class Results:
    """All results of one run, or of several that were kept in one file."""

    def __init__(self):
        self.figures, self.gaps, self.run = {}, {}, {}

    def add(self, line):
        if "run" in line:
            self.run = {**self.run, **line["run"]}
            return
        key = (line["row"], line["server"])
        if "hole" in line:
            self.gaps.setdefault(key, {})[line["pass"]] = line["hole"]
            return
        self.gaps.get(key, {}).pop(line["pass"], None)
        for name, value in line["result"].items():
            self.figures.setdefault((*key, name), {})[line["pass"]] = value

    def is_done(self, row, server, number):
        """Whether a pass has a result already, or its row has had its holes."""
        with_result = any(number in passes for (a, b, _), passes in self.figures.items() if (a, b) == (row, server))
        return with_result or len(self.gaps.get((row, server), {})) >= HOLES_MAX

    def passes(self, row, server, figure):
        """Pass to value, of what is a number."""
        return {number: value for number, value in self.figures.get((row, server, figure), {}).items() if isinstance(value, (int, float))}

    def words(self, row, server, figure):
        """The different words that stand under `figure`, such as which shard held what."""
        return sorted({value for value in self.figures.get((row, server, figure), {}).values() if isinstance(value, str)})

    def hole(self, row, server):
        """Why there is no result, when there is none at all."""
        has_any = any((a, b) == (row, server) for a, b, _ in self.figures)
        reasons = self.gaps.get((row, server), {})
        return None if has_any or not reasons else reasons[max(reasons)]


def read(lines):
    """Results from lines of JSON.

    Raises ValueError with the line's number for what is none of them."""
    results = Results()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
            if not isinstance(found, dict) or not ("run" in found or {"row", "server", "pass"} <= found.keys() and ("result" in found or "hole" in found)):
                raise ValueError("not a result")
            results.add(found)
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"line {number} is no result: {error}") from error
    return results


def pair_ratios(of, to):
    """of / to of each pass that has both."""
    return [of[number] / to[number] for number in sorted(of.keys() & to.keys()) if to[number]]


def quartile_range(values):
    """The distance of the quartiles: how far apart the middle half of the values lies."""
    if len(values) < 2:
        return 0.0
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return third - first


@dataclass(frozen=True)
class Verdict:
    """What a row of scheduling comes to.

    `moved` is the median over the pairs of on / off - 1, `spread` the quartiles' distance of these ratios, `allowed` the larger of 20 % and
    that; `passed` is None when there are too few pairs to say, they are too far apart, or the proof is missing."""

    pairs: int
    moved: float
    spread: float
    allowed: float
    proven: bool
    passed: bool | None


def judge(on, off, proof_on, proof_off):
    """Judges the values of on and off, pass to value; the proof of on must be more than twice that of off. None without any pair."""
    ratios = pair_ratios(on, off)
    if not ratios:
        return None
    moved, spread = statistics.median(ratios) - 1, quartile_range(ratios)
    allowed = max(MOVED_MAX, spread)
    proven = bool(proof_on) and statistics.median(proof_on.values()) > 2 * statistics.median(proof_off.values() or [0])
    passed = moved <= allowed if proven and len(ratios) >= JUDGED_PAIRS_MIN and spread <= SPREAD_MAX else None
    return Verdict(len(ratios), moved, spread, allowed, proven, passed)
