"""Counts the broker's instructions per batch. Started by scripts/bench/guard. Usage: guard.py HOT_PATH [--update]

Each workload of tools/sim's hot-path runs twice under callgrind, for N and for 2 N batches. What counts is what runs inside Shard::turn, less
the simulated driver's own work; the difference between the two runs is what N batches cost, without the start and the making of the topic.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile

BATCHES = {"produce-64k": 256, "produce-16k": 512, "produce-1k-64": 2048, "fetch-64k": 512, "fetch-1k-64": 4096}
GROWTH_MAX = 0.05
TURN = "millrace_shard::shard::Shard::turn"
DRIVER = re.compile(r"^ *([\d,]+) .*:<millrace_io::sim::driver::SimDriver as millrace_io::driver::Driver>::(\w+) \[")
WHOLE = re.compile(r"^ *([\d,]+) \(100\.0%\) +PROGRAM TOTALS")
FIGURES = pathlib.Path(__file__).with_name("guard.json")


def count(binary, workload, batches, folder):
    out = f"{folder}/{workload}-{batches}"
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", f"--toggle-collect={TURN}", binary, workload, str(batches)]
    subprocess.run(command, check=True, capture_output=True)
    command = ["callgrind_annotate", "--inclusive=yes", "--threshold=100", out]
    # In a folder without sources: names are shortened where these are below.
    text = subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder).stdout
    number = lambda found: int(found.group(1).replace(",", ""))
    whole = [number(found) for found in map(WHOLE.match, text.splitlines()) if found]
    driver = [number(found) for found in map(DRIVER.match, text.splitlines()) if found]
    methods = {found.group(2) for found in map(DRIVER.match, text.splitlines()) if found}
    if len(whole) != 1 or not {"poll", "submit"} <= methods or sum(driver) >= whole[0]:
        sys.exit(f"guard: {workload}: the profile does not name {TURN} and the simulated driver's methods: whole {whole}, driver {driver}, {methods}")
    return whole[0] - sum(driver)


def main():
    binary, is_update = sys.argv[1], sys.argv[2:] == ["--update"]
    known = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
    counted, grown = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for workload, batches in BATCHES.items():
            once, twice = (count(binary, workload, times * batches, folder) for times in (1, 2))
            counted[workload] = now = round((twice - once) / batches)
            before = known.get(workload)
            change = f"{(now / before - 1) * 100:+.1f} % of {before:,}" if before else "no figure yet"
            print(f"{workload}: {now:,} instructions a batch ({change})", flush=True)
            if before is None or now > before * (1 + GROWTH_MAX):
                grown.append(workload)
    if is_update:
        FIGURES.write_text(json.dumps(counted, indent=4) + "\n", encoding="utf-8")
        return 0
    for workload in grown:
        print(f"FAIL {workload}: more than {GROWTH_MAX:.0%} above the figure in {FIGURES.name}; mend it, or say why and run guard --update")
    print(f"guard: {len(counted) - len(grown)} passed, {len(grown)} failed")
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
