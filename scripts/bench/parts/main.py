"""Runs the speed table: chooses rows, measures them pass by pass, keeps single results, and writes the table and its plots.

How it works:
1. Row by row; a row's passes go A B C D, D C B A and so on, so that what drifts on the machine hits all alike.
2. Before each run `sync` empties the page cache of dirty pages, and all servers but the one in turn stand still.
3. A run that fails is a hole with its reason; after two the row is left out on that server. All else goes on.
4. Each result is a line in the file of --keep as soon as it is there. With --resume what it holds is not measured again.

Started by scripts/bench/run, which sets the environment.
"""

import argparse
import json
import os
import pathlib
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace

import measure
import plots
import results
import rows
import table
import versus
from servers import STANDS_STILL, Fleet, Hole, Kind


def say(words):
    print(words, file=sys.stderr, flush=True)


def cores(words):
    found = sorted({int(word) for word in words.split(",")})
    if missing := set(found) - os.sched_getaffinity(0):
        raise ValueError(f"core {min(missing)} is not there")
    return found


def positive(words):
    number = int(words)
    if number < 1:
        raise ValueError(f"{words} is below 1")
    return number


def parsed(arguments):
    parser = argparse.ArgumentParser(prog="run", description="The speed table and its plots.")
    listed = lambda words: [word for word in words.split(",") if word]
    parser.add_argument("--quick", action="store_true", help="one short pass of each: proves that all runs, says little about speed")
    parser.add_argument("--only", type=listed, default=[], metavar="NAME,...", help="groups or rows")
    parser.add_argument("--systems", type=listed, default=list(rows.ALL), metavar="NAME,...", help=f"of {','.join(rows.ALL)}")
    parser.add_argument("--pairs", type=positive, help="passes of a row")
    parser.add_argument("--judged-pairs", type=positive, help="passes of a row of scheduling")
    parser.add_argument("--seconds", type=positive, help="of a measured window")
    parser.add_argument("--warm-up", type=positive, metavar="SECONDS", help="before each measured window")
    parser.add_argument("--keep", metavar="FILE", help="append every single result to FILE, a line of JSON each")
    parser.add_argument("--resume", action="store_true", help="leave out what the file of --keep holds already")
    parser.add_argument("--from", dest="source", metavar="FILE", help="only make the table and plots of FILE")
    parser.add_argument("--out", metavar="FOLDER", help="where table.md and the plots go; default: bench-results in the target folder")
    parser.add_argument("--list", action="store_true", help="only list the rows")
    parser.add_argument("--broker-cores", type=cores, default=[0], metavar="LIST")
    parser.add_argument("--client-cores", type=cores, default=None, metavar="LIST", help="default: 1, on one core 0")
    options = parser.parse_args(arguments)
    if unknown := set(options.systems) - set(rows.ALL):
        parser.error(f"unknown system {', '.join(sorted(unknown))}: take of {', '.join(rows.ALL)}")
    if options.resume and not options.keep:
        parser.error("--resume needs --keep FILE")
    if options.client_cores is None:
        options.client_cores = [1] if 1 in os.sched_getaffinity(0) else [0]
    options.systems = [server for server in rows.ALL if server in options.systems]
    sizes = rows.QUICK if options.quick else rows.FULL
    given = {"pairs": options.pairs, "judged_pairs": options.judged_pairs, "seconds": options.seconds, "warm_s": options.warm_up}
    options.sizes = replace(sizes, **{name: value for name, value in given.items() if value})
    try:
        options.rows = rows.chosen(rows.registry(), options.only)
    except ValueError as problem:
        parser.error(str(problem))
    return options


def machine(options):
    """What a run was made on."""
    cpu = next((line.partition(":")[2].strip() for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if line.startswith("model name")), "")
    listed = lambda some: ",".join(map(str, some))
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"), "cores": os.cpu_count(), "cpu": cpu, "kernel": platform.release(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)),
        "broker_cores": listed(options.broker_cores), "client_cores": listed(options.client_cores),
        "both_cores": listed(sorted({*options.broker_cores, *options.client_cores})), "systems": options.systems,
        "quick": options.quick, "pairs": options.sizes.pairs, "judged_pairs": options.sizes.judged_pairs, "seconds": options.sizes.seconds,
        "warm_s": options.sizes.warm_s,
    }  # fmt: skip


class Run:
    """One run: its servers, and its results so far."""

    def __init__(self, options, work):
        self.options, self.work, self.sizes = options, work, options.sizes
        self.found = results.Results()
        self.fleet = Fleet(work, lambda server: measure.warm_up(self.bench(server.kind, server, 600), server))
        self.kept = {}
        self.failed = []

    def bench(self, name, server, bound_s, number=0, client_cores=None):
        return measure.Bench(name, server, self.sizes, client_cores or self.options.client_cores, bound_s, self.work, self.kept, number)

    def note(self, entry):
        self.found.add(entry)
        if self.options.keep:
            with open(self.options.keep, "a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")

    def one(self, row, name, number, measured):
        """One run of `row` on `name`, noted whatever comes of it."""
        if self.found.is_done(row.name, name, number):
            return
        entry = {"row": row.name, "server": name, "pass": number}
        began = time.monotonic()
        try:
            found = measured()
            self.note({**entry, "result": found})
            told = row.figures if isinstance(row, rows.Row) else [figure for figure in (row.figure, row.proof) if figure]
            shown = " ".join(f"{figure.name} {found[figure.name]:.3f}" for figure in told if figure.name in found)
            say(f"{row.name} {name} pass {number + 1}: {shown}  [{time.monotonic() - began:.0f} s]")
        except (Hole, OSError, KeyError, ValueError, ZeroDivisionError, subprocess.SubprocessError) as problem:
            why = str(problem) if isinstance(problem, Hole) else f"{type(problem).__name__}: {problem}"
            self.note({**entry, "hole": why})
            say(f"{row.name} {name} pass {number + 1}: HOLE: {why}")
            self.failed.append((row.name, name))

    def server(self, name):
        kind = "kafka" if name == rows.FLUSH else name
        settings = STANDS_STILL if kind == "kafka" else []
        bare = {"bare_bytes": (256 << 20) if self.options.quick else (2 << 30), "reads_bytes": self.sizes.hot_mb * measure.MB}
        return self.fleet.get(kind, kind=kind, cores=self.options.broker_cores, settings=settings, **bare)

    def compare(self, row):
        servers = [server for server in row.servers if server in self.options.systems]
        for number in range(self.sizes.pairs):
            for name in results.order(servers, number):

                def measured(name=name, number=number):
                    if row.starts_its_own:
                        self.fleet.rest()
                        server = Kind(name, self.options.broker_cores)
                    else:
                        server = self.server(name)
                    os.sync()
                    return getattr(measure, row.measure)(self.bench(name, server, row.bound_s, number), row.args)

                self.one(row, name, number, measured)

    def versus(self, row):
        """Millrace against itself; with two shards the cores are shared with the client."""
        both = sorted({*self.options.broker_cores, *self.options.client_cores})
        for number in range(row.passes(self.sizes)):
            for variant in results.order([row.off, row.on], number):

                def measured(variant=variant, number=number):
                    apart = variant.shards == 1
                    name = "-".join(["millrace", *([f"{variant.shards}-shards"] if not apart else []), *variant.settings])
                    broker = self.options.broker_cores if apart else both
                    server = self.fleet.get(name, kind="millrace", cores=broker, settings=variant.settings, shards=variant.shards)
                    os.sync()
                    clients = self.options.client_cores if apart else both
                    return versus.run(self.bench("millrace", server, row.bound_s, number, clients), row, variant)

                self.one(row, variant.name, number, measured)

    def measure_all(self):
        began = time.monotonic()
        left = list(self.options.rows)
        while left:
            row = left[0]
            say(f"-- {row.group}: {row.name}, {time.monotonic() - began:.0f} s so far, about {rows.estimate_s(left, self.options.systems, self.sizes) / 60:.0f} min to go")
            if not isinstance(row, rows.Versus):
                self.compare(row)
            elif rows.MILLRACE in self.options.systems:
                self.versus(row)
            for kept in self.kept.values():
                kept.remove()
            self.kept.clear()
            left.pop(0)
            if left and isinstance(left[0], rows.Versus) and left[0].group != row.group:
                self.fleet.remove()  # the servers of other rows take memory from those that are compared now

    def remove(self):
        for kept in self.kept.values():
            kept.remove()
        self.fleet.remove()


def write(options, found):
    """table.md and the plots in the folder of --out; gives the page."""
    out = pathlib.Path(options.out or f"{os.environ.get('TARGET', '.')}/bench-results")
    out.mkdir(parents=True, exist_ok=True)
    drawn = plots.all_plots(rows.registry(), found)
    for name, _, picture in drawn:
        (out / name).write_text(picture, encoding="utf-8")
    page = table.markdown(rows.registry(), found, [(name, group) for name, group, _ in drawn])
    (out / "table.md").write_text(page, encoding="utf-8")
    say(f"table.md and {len(drawn)} plots are in {out}")
    return page


def listing(options):
    lines = ["| group | row | what is measured | client | s a run |", "|---|---|---|---|--:|"]
    for row in options.rows:
        seconds = row.run_s(options.sizes) if isinstance(row, rows.Versus) else row.run_s(rows.MILLRACE, options.sizes)
        lines.append(f"| {row.group} | `{row.name}` | {row.what} | {row.client} | {seconds:.0f} |")
    return "\n".join([*lines, "", f"All of it: about {rows.estimate_s(options.rows, options.systems, options.sizes) / 60:.0f} minutes."])


def touch_memory(work, sizes):
    """Memory that the host has not backed yet costs many times as much at its first touch: it is touched before anything counts."""
    block = b"\0" * (1 << 20)
    with open(f"{work}/touch", "wb") as file:
        for _ in range(sizes.touch_mb):
            file.write(block)
    os.unlink(f"{work}/touch")


def kept_before(options):
    if not (options.resume and os.path.exists(options.keep)):
        return results.Results()
    with open(options.keep, encoding="utf-8") as lines:
        return results.read(lines)


def main(arguments):
    options = parsed(arguments)
    if options.list:
        print(listing(options))
        return 0
    if options.source:
        try:
            with open(options.source, encoding="utf-8") as lines:
                print(write(options, results.read(lines)))
        except (OSError, ValueError) as problem:
            say(f"error: {options.source}: {problem}")
            return 2
        return 0
    os.sched_setaffinity(0, options.client_cores)
    work = tempfile.mkdtemp(prefix="bench.", dir=os.environ["TARGET"])
    run = Run(options, work)
    began = time.monotonic()
    try:
        run.found = kept_before(options)
        run.note({"run": machine(options)})
        say(f"{len(options.rows)} rows, about {rows.estimate_s(options.rows, options.systems, options.sizes) / 60:.0f} minutes")
        touch_memory(work, options.sizes)
        run.measure_all()
    except (ValueError, OSError) as problem:
        say(f"error: {problem}")
        return 2
    finally:
        run.remove()
        shutil.rmtree(work, ignore_errors=True)
    print(write(options, run.found))
    print(f"{time.monotonic() - began:.0f} s, load average at the end {os.getloadavg()[0]:.1f}")
    ours = sorted({row for row, name in run.failed if name not in (rows.KAFKA, rows.FLUSH)})
    if ours:
        say(f"error: holes that are not the peer's: {', '.join(ours)}")
    return 1 if ours else 0


def end_cleanly(*_):
    """A run that is ended cleans up after itself; what asks twice does not cut that short."""
    for asked in (signal.SIGTERM, signal.SIGINT):
        signal.signal(asked, signal.SIG_IGN)
    sys.exit(143)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, end_cleanly)
    signal.signal(signal.SIGINT, end_cleanly)
    sys.exit(main(sys.argv[1:]))
