"""Makes the speed table from its results, in markdown: median (lowest-highest) of each figure.

Usage: table.py FILE        FILE has one JSON object a line: server, row, round, result.
       table.py --brief JSON  the figures of one result in a few words
       table.py --cpu PID     CPU seconds that a process has used
"""

import json
import os
import statistics
import sys

SERVERS = [("bare", "bare ring server"), ("millrace", "Millrace"), ("kafka", "Kafka"), ("kafka-flush", "Kafka, flush per message")]

# By client: row, what it is, figure, unit, digits behind the point
CLIENTS = {
    "librdkafka": [
        ("rd-one", "produce, 1 partition, 64 KiB batches", "mb_per_s", "MB/s", 0),
        ("rd-one", "- server CPU", "server_cpu_s_per_gb", "s/GB", 2),
        ("rd-many", "produce, 1,000 partitions (--quick: 100), 64 KiB batches", "mb_per_s", "MB/s", 0),
        ("rd-many", "- server CPU", "server_cpu_s_per_gb", "s/GB", 2),
        ("rd-latency", "acknowledgement, one in flight, 1 KiB: p50", "p50_ms", "ms", 3),
        ("rd-latency", "- p99", "p99_ms", "ms", 3),
        ("rd-fetch", "fetch what was just produced (1.1 GB; --quick: 0.2)", "mb_per_s", "MB/s", 0),
        ("rd-fetch", "- server CPU", "server_cpu_s_per_gb", "s/GB", 2),
        ("rd-idle", "idle memory after the start", "rss_mib", "MiB", 1),
        ("rd-start", "start on an empty directory to the first acknowledgement", "acknowledged_s", "s", 2),
        ("rd-restart", "the same after kill -9, with 1,000 partitions (--quick: 100)", "acknowledged_s", "s", 2),
    ],
    "raw wire": [
        ("one-64k", "produce, 1 partition, 64 KiB batches, 4 in flight", "mb_per_s", "MB/s", 0),
        ("one-64k", "- server CPU", "server_cpu_s_per_gb", "s/GB", 2),
        ("four-128k", "produce, 4 connections, 128 KiB batches", "mb_per_s", "MB/s", 0),
        ("four-128k", "- server CPU", "server_cpu_s_per_gb", "s/GB", 2),
        ("one-1m", "produce, 1 connection, 1 MB batches", "mb_per_s", "MB/s", 0),
        ("one-1m", "- server CPU", "server_cpu_s_per_gb", "s/GB", 2),
        ("thousand", "produce, 1,000 partitions, 64 KiB batches", "mb_per_s", "MB/s", 0),
        ("spread-16k", "produce, 16 KiB batches over 64 partitions, 8 a request", "mb_per_s", "MB/s", 0),
        ("latency", "acknowledgement, one in flight, 1 KiB: p50", "p50_ms", "ms", 3),
        ("latency", "- p99", "p99_ms", "ms", 3),
        ("end-to-end-1k", "end to end, 1,000 records/s: p50", "p50_ms", "ms", 3),
        ("end-to-end-1k", "- p99", "p99_ms", "ms", 3),
        ("end-to-end-50k", "end to end, 50,000 records/s: p50", "p50_ms", "ms", 3),
        ("end-to-end-50k", "- p99", "p99_ms", "ms", 3),
        ("fetch", "fetch from memory, 1 connection, 1 MiB", "mb_per_s", "MB/s", 0),
        ("fetch", "- server CPU", "server_cpu_s_per_gb", "s/GB", 2),
        ("idle", "idle memory after the start", "rss_mib", "MiB", 1),
        ("idle", "- CPU of one core", "cpu_percent", "%", 2),
        ("start", "start on an empty directory to the first acknowledgement", "acknowledged_s", "s", 3),
        ("restart", "the same after kill -9, with 10 GiB in the log (--quick: 256 MiB)", "acknowledged_s", "s", 3),
    ],
}


def cell(values, digits):
    if not values:
        return ""
    median = f"{statistics.median(values):.{digits}f}"
    if len(values) == 1:
        return median
    return f"{median} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def ratio(values, of):
    if not values or not of or statistics.median(of) == 0:
        return ""
    return f"{statistics.median(values) / statistics.median(of):.2f}"


def table(results):
    found = {}
    for entry in results:
        for figure, value in entry["result"].items():
            found.setdefault((entry["row"], figure, entry["server"]), []).append(value)
    heads = ["client", "", *(name for _, name in SERVERS), "Millrace / bare", "Millrace / Kafka"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for client, rows in CLIENTS.items():
        for row, what, figure, unit, digits in rows:
            values = {server: found.get((row, figure, server), []) for server, _ in SERVERS}
            if any(values.values()):
                cells = [cell(values[server], digits) for server, _ in SERVERS]
                cells += [ratio(values["millrace"], values["bare"]), ratio(values["millrace"], values["kafka"])]
                lines.append("| " + " | ".join([client, f"{what}, {unit}", *cells]) + " |")
    return "\n".join(lines)


def brief(result):
    shown = ["mb_per_s", "p50_ms", "p99_ms", "server_cpu_s_per_gb"]
    return " ".join(f"{name} {result[name]:.3f}" for name in shown if name in result)


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(arguments):
    if arguments[0] == "--brief":
        print(brief(json.loads(arguments[1])))
    elif arguments[0] == "--cpu":
        print(cpu_seconds(arguments[1]))
    else:
        with open(arguments[0], encoding="utf-8") as lines:
            print(table(json.loads(line) for line in lines))


if __name__ == "__main__":
    main(sys.argv[1:])
