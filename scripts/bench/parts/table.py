"""The speed table in Markdown: a part for each group of rows, medians with the lowest and the highest, and under it why there are holes.

Knows nothing of how anything was measured; rows and results are data.
"""

import statistics

from results import SPREAD_MAX, judge, pair_ratios
from rows import ALL, BARE, FLUSH, KAFKA, MILLRACE, Versus

NAMES = {BARE: "bare ring server", MILLRACE: "Millrace", KAFKA: "Kafka", FLUSH: "Kafka, flush per message"}
TITLES = {
    "produce-raw": "Produce throughput, raw wire",
    "produce-librdkafka": "Produce throughput, librdkafka",
    "produce-perf-tools": "Produce throughput, kafka-producer-perf-test",
    "latency": "Durable latency, raw wire",
    "latency-librdkafka": "Durable latency, librdkafka",
    "end-to-end": "Latency from when a record was due to its consumer, raw wire",
    "fetch": "Fetch throughput",
    "catch-up": "Catch-up readers beside live producers",
    "start": "Start, and memory and CPU when idle",
    "restart": "Start after kill -9",
    "memory": "Memory",
    "topics": "Topic creation",
    "partitions": "Many partitions against one (Millrace)",
    "shards": "Two shards against one (Millrace)",
    "driver": "The portable driver against io_uring (Millrace)",
    "scheduling": "Scheduling: what goes on behind acknowledgements (Millrace)",
}
NONE = "–"


def number(value, digits):
    return f"{value:,.{digits}f}"


def cell(passes, digits):
    """Median (lowest-highest) of pass to value; empty without any."""
    values = list(passes.values())
    if not values:
        return ""
    middle = number(statistics.median(values), digits)
    return middle if len(values) == 1 else f"{middle} ({number(min(values), digits)}-{number(max(values), digits)})"


def ratio(of, to):
    """The median of the pairs' ratios."""
    ratios = pair_ratios(of, to)
    return number(statistics.median(ratios), 2) if ratios else ""


def lines_of(heads, rows):
    return ["| " + " | ".join(heads) + " |", "|" + "---|" * 1 + "--:|" * (len(heads) - 1), *("| " + " | ".join(row) + " |" for row in rows)]


class Notes:
    """Reasons of holes, numbered in the order in which they are met."""

    def __init__(self):
        self.lines = []

    def add(self, text):
        text = text.replace("\n", " ")
        if text not in self.lines:
            self.lines.append(text)
        return f"hole {self.lines.index(text) + 1}"


def label(row, figure, first):
    what = f"{row.what}, {row.client}" if row.group == "fetch" else row.what
    if first:
        return f"{what}{': ' + figure.label if figure.label else ''}, {figure.unit}"
    return f"- {figure.label}, {figure.unit}"


def compared(rows, results, notes):
    """The part of rows that compare servers; of those without any result nothing."""
    servers = [server for server in ALL if any(server in row.servers for row in rows)]
    against = [server for server in servers if server != MILLRACE]
    heads = ["", *(NAMES[server] for server in servers), *(f"Millrace / {NAMES[server]}" for server in against)]
    shown = []
    for row in rows:
        holes = {server: results.hole(row.name, server) for server in servers}
        found = {(server, figure): results.passes(row.name, server, figure.name) for server in servers for figure in row.figures}
        if not any(holes.values()) and not any(found.values()):
            continue
        for at, figure in enumerate(row.figures):
            cells = []
            for server in servers:
                if server not in row.servers:
                    cells.append(NONE)
                elif holes[server]:
                    cells.append(notes.add(f"{row.name}, {NAMES[server]}: {holes[server]}") if at == 0 else "")
                else:
                    cells.append(cell(found[server, figure], figure.digits))
            ratios = [ratio(found[MILLRACE, figure], found[server, figure]) if server in row.servers else NONE for server in against]
            shown.append([label(row, figure, at == 0), *cells, *ratios])
    return lines_of(heads, shown) if shown else []


def verdict_words(verdict):
    if not verdict.proven:
        return "not proven that on was on"
    if verdict.spread > SPREAD_MAX:
        return "pairs too far apart to judge"
    if verdict.passed is None:
        return f"{verdict.pairs} pairs are too few to judge"
    return "holds" if verdict.passed else "**moved too far**"


def versus(rows, results, notes):
    """The part of rows that compare two variants."""
    shown, heads = [], []
    for row in rows:
        off, on = (results.passes(row.name, variant.name, row.figure.name) for variant in (row.off, row.on))
        reasons = [results.hole(row.name, variant.name) for variant in (row.off, row.on)]
        if not off and not on and not any(reasons):
            continue
        cells = [notes.add(f"{row.name}, {variant.name}: {why}") if why else cell(passes, row.figure.digits)
                 for variant, passes, why in zip((row.off, row.on), (off, on), reasons)]  # fmt: skip
        what = f"{row.what}{': ' + row.figure.label if row.figure.label else ''}, {row.figure.unit}"
        if not row.judged:
            heads = ["", row.off.name, row.on.name, f"{row.on.name} / {row.off.name}"]
            shown.append([what, *cells, ratio(on, off)])
            if max(row.off.shards, row.on.shards) > 1:
                heads.append("with 2 shards, held by shards: connections; partitions")
                shown[-1].append(held(results, row.name, row.on.name))
            continue
        heads = ["", "off", "on", "on / off", "quartiles of the pairs apart", "may move by", "proof, off and on", "verdict"]
        proofs = [results.passes(row.name, variant.name, row.proof.name) for variant in (row.off, row.on)]
        told = f"{row.proof.label}{', ' + row.proof.unit if row.proof.unit else ''}: {' and '.join(cell(passes, row.proof.digits) for passes in proofs)}"
        verdict = judge(on, off, proofs[1], proofs[0])
        if verdict is None:
            shown.append([what, *cells, "", "", "", told, ""])
        else:
            figures = [number(1 + verdict.moved, 2), number(verdict.spread, 2), number(verdict.allowed, 2)]
            shown.append([what, *cells, *figures, told, verdict_words(verdict)])
    return lines_of(heads, shown) if shown else []


def held(results, row, variant):
    """Which shards held the connections, and which the partitions; each pass may differ."""
    connections, partitions = (results.words(row, variant, name) for name in ("connection_shards", "partition_shards"))
    return f"{', '.join(connections)}; {', '.join(partitions)}" if connections else ""


def about(run):
    """What the run was made on, in a line or two."""
    if not run:
        return []
    words = [run.get("date", ""), f"{run.get('cores', '?')} cores", run.get("cpu", ""), f"{run.get('memory_gib', '?')} GiB", f"Linux {run.get('kernel', '?')}"]
    pinned = f"Servers on core {run.get('broker_cores', '?')}, clients on core {run.get('client_cores', '?')}; with two shards both on {run.get('both_cores', '?')}."
    lines = [", ".join(word for word in words if word) + ". " + pinned]
    lines.append(f"{run.get('pairs', '?')} pairs, {run.get('judged_pairs', '?')} of scheduling, in the order A B B A; windows of {run.get('seconds', '?')} s "
                 f"after {run.get('warm_s', '?')} s of warm-up. Median (lowest-highest); a ratio is the median of the pairs' ratios.")  # fmt: skip
    if run.get("quick"):
        lines.append("**--quick: proves that all runs, says little about speed.**")
    return [*lines, ""]


def markdown(rows, results, plots=()):
    """The whole page; `plots` are names of SVG files beside it."""
    notes, page = Notes(), ["# Speed", "", *about(results.run)]
    for group in dict.fromkeys(row.group for row in rows):
        of_group = [row for row in rows if row.group == group]
        part = versus(of_group, results, notes) if isinstance(of_group[0], Versus) else compared(of_group, results, notes)
        if part:
            page += [f"## {TITLES[group]}", "", *part, ""]
            page += [f"![{name.removesuffix('.svg')}]({name})" for name, of in plots if of == group]
            page += [""] if any(of == group for _, of in plots) else []
    if notes.lines:
        page += ["## Holes", "", *(f"{at}. {line}" for at, line in enumerate(notes.lines, 1)), ""]
    return "\n".join(page)
