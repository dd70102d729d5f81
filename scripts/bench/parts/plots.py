"""The plots as SVG, written by hand: bars of throughput with their spread, and curves of latency over rate.

Both draw the same picture for the same results. A bar or point is a median; the thin line through it goes from the lowest to the highest.

Knows nothing of how anything was measured.
"""

import math
import statistics
from html import escape

from rows import ALL, Versus
from table import NAMES, TITLES

COLORS = {"bare": "#8a8a8a", "millrace": "#0b6fb8", "kafka": "#d1621a", "kafka-flush": "#8c3fa8"}
DASHES = {"p50_ms": "", "p99_ms": "7 4", "p999_ms": "2 3"}
FONT = "font-family='sans-serif' font-size='12'"
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 64, 46
BAR, GAP = 11, 12


def svg(width, height, parts):
    head = f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' viewBox='0 0 {width} {height}' {FONT}>"
    return "\n".join([head, f"<rect width='{width}' height='{height}' fill='white'/>", *parts, "</svg>"]) + "\n"


def text(x, y, words, anchor="start", more=""):
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' {more}>{escape(words)}</text>"


def line(x1, y1, x2, y2, color="#cccccc", width=1.0, dash=""):
    dashed = f" stroke-dasharray='{dash}'" if dash else ""
    return f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' stroke='{color}' stroke-width='{width}'{dashed}/>"


def legend(servers, x, y):
    parts = []
    for server in servers:
        parts += [f"<rect x='{x}' y='{y - 10}' width='12' height='12' fill='{COLORS[server]}'/>", text(x + 17, y, NAMES[server])]
        x += 40 + 7 * len(NAMES[server])
    return parts


def steps(highest):
    """Round marks from 0 to at least `highest`, five to ten of them."""
    if highest <= 0:
        return [0.0, 1.0]
    power = 10 ** math.floor(math.log10(highest / 5))
    step = next(power * times for times in (1, 2, 5, 10) if highest / (power * times) <= 10)
    return [step * at for at in range(math.ceil(highest / step) + 1)]


def bars(title, rows, results, unit="MB/s"):
    """Horizontal bars, a block for each row and in it a bar for each server. None without any result."""
    blocks = []
    for row in rows:
        found = {server: list(results.passes(row.name, server, row.figures[0].name).values()) for server in row.servers}
        found = {server: values for server, values in found.items() if values}
        if found:
            blocks.append((row, found))
    if not blocks:
        return None
    servers = [server for server in ALL if any(server in found for _, found in blocks)]
    marks = steps(max(max(values) for _, found in blocks for values in found.values()))
    left, width = 330, 900
    scale = (width - left - 70) / marks[-1]
    height = TOP + sum(BAR * len(found) + GAP for _, found in blocks) + BOTTOM
    parts = [text(10, 20, f"{title}, {unit}", more="font-weight='bold'"), *legend(servers, 10, 44)]
    for mark in marks:
        x = left + mark * scale
        parts += [line(x, TOP - 6, x, height - BOTTOM), text(x, height - BOTTOM + 16, f"{mark:,.10g}", "middle")]
    y = TOP
    for row, found in blocks:
        parts.append(text(left - 8, y + (BAR * len(found) + 8) / 2, shortened(row.what), "end"))
        for server, values in ((server, found[server]) for server in ALL if server in found):
            middle = statistics.median(values)
            parts.append(f"<rect x='{left}' y='{y}' width='{max(middle * scale, 0.5):.1f}' height='{BAR - 2}' fill='{COLORS[server]}'/>")
            center = y + (BAR - 2) / 2
            parts.append(line(left + min(values) * scale, center, left + max(values) * scale, center, "#222222", 1.2))
            parts.append(text(left + max(values) * scale + 5, y + BAR - 2, f"{middle:,.0f}", more="font-size='10'"))
            y += BAR
        y += GAP
    return svg(width, height, parts)


def shortened(words, most=48):
    return words if len(words) <= most else words[: most - 1] + "…"


def decades(lowest, highest):
    """Powers of ten from at most `lowest` to at least `highest`, two at least."""
    first, last = math.floor(math.log10(lowest)), math.ceil(math.log10(highest))
    return [10.0**power for power in range(first, max(last, first + 1) + 1)]


def curves(title, rows, results):
    """Latency over rate, both by powers of ten: for each server p50, p99 and p999. None without any result."""
    points = {}
    for row in rows:
        for server in row.servers:
            for figure in row.figures:
                if values := list(results.passes(row.name, server, figure.name).values()):
                    points.setdefault((server, figure.name), []).append((row.args["rate"], values))
    if not points:
        return None
    servers = [server for server in ALL if any(server == drawn for drawn, _ in points)]
    values = [value for of_one in points.values() for _, some in of_one for value in some if value > 0]
    rates, marks = decades(min(row.args["rate"] for row in rows), max(row.args["rate"] for row in rows)), decades(min(values), max(values))
    width, height = 760, 460
    x_of = lambda rate: LEFT + (math.log10(rate) - math.log10(rates[0])) / (math.log10(rates[-1]) - math.log10(rates[0])) * (width - LEFT - RIGHT)
    y_of = lambda ms: height - BOTTOM - (math.log10(max(ms, marks[0])) - math.log10(marks[0])) / (math.log10(marks[-1]) - math.log10(marks[0])) * (height - TOP - BOTTOM)
    parts = [text(10, 20, f"{title}, ms", more="font-weight='bold'"), *legend(servers, 10, 44)]
    parts.append(text(width - RIGHT, 20, "p50 solid, p99 dashed, p999 dotted", "end"))
    for rate in rates:
        parts += [line(x_of(rate), TOP, x_of(rate), height - BOTTOM), text(x_of(rate), height - BOTTOM + 16, f"{rate:,.0f}", "middle")]
    for mark in marks:
        parts += [line(LEFT, y_of(mark), width - RIGHT, y_of(mark)), text(LEFT - 8, y_of(mark) + 4, f"{mark:,.10g}", "end")]
    parts.append(text((LEFT + width - RIGHT) / 2, height - 10, "records a second", "middle"))
    for server in servers:
        for figure, dash in DASHES.items():
            drawn = sorted(points.get((server, figure), []))
            middles = [(x_of(rate), y_of(statistics.median(some))) for rate, some in drawn]
            if len(middles) > 1:
                path = " ".join(f"{x:.1f},{y:.1f}" for x, y in middles)
                dashed = f" stroke-dasharray='{dash}'" if dash else ""
                parts.append(f"<polyline points='{path}' fill='none' stroke='{COLORS[server]}' stroke-width='1.6'{dashed}/>")
            for (x, y), (_, some) in zip(middles, drawn):
                parts.append(f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3' fill='{COLORS[server]}'/>")
                parts.append(line(x, y_of(min(some)), x, y_of(max(some)), COLORS[server], 1))
    return svg(width, height, parts)


def all_plots(rows, results):
    """(file name, group, SVG) of every plot that has something to show."""
    drawn = []
    compared = [row for row in rows if not isinstance(row, Versus)]
    for group in dict.fromkeys(row.group for row in compared if row.plot == "bars"):
        of_group = [row for row in compared if row.group == group and row.plot == "bars"]
        drawn.append((f"{group}.svg", group, bars(TITLES[group], of_group, results)))
    for name in dict.fromkeys(row.plot for row in compared if row.plot.startswith("curve:")):
        of_name = [row for row in compared if row.plot == name]
        shown = name.removeprefix("curve:")
        drawn.append((f"latency-{shown}.svg", of_name[0].group, curves(f"Latency over rate, {shown.replace('-', ' ')}", of_name, results)))
    return [plot for plot in drawn if plot[2] is not None]
