"""The registry names every row that is promised, and each can be measured. Run: python3 -m unittest rows_test"""

import unittest

import measure
import rows
import table
import versus


class RegistryTest(unittest.TestCase):
    def setUp(self):
        self.rows = rows.registry()
        self.names = [row.name for row in self.rows]

    def test_names_are_unique_and_none_is_a_group(self):
        self.assertEqual(len(self.names), len(set(self.names)))
        self.assertFalse(set(self.names) & ({row.group for row in self.rows} - {"restart", "topics", "catch-up"}))

    def test_groups_stand_together_and_have_titles(self):
        groups = [row.group for row in self.rows]
        self.assertEqual(groups, sorted(groups, key=groups.index))
        self.assertEqual(set(groups), set(table.TITLES))

    def test_every_row_can_be_measured(self):
        for row in self.rows:
            home = versus if row.measure == "scheduled" else measure
            self.assertTrue(callable(getattr(home, row.measure, None)), row.name)
            self.assertGreater(row.bound_s, row.run_s(rows.FULL) if isinstance(row, rows.Versus) else row.run_s(rows.KAFKA, rows.FULL), row.name)

    def test_both_clients_produce_in_every_way(self):
        raw = {name.removeprefix("raw-") for name in self.names if name.startswith("raw-")}
        librdkafka = {row.name.removeprefix("rd-") for row in self.rows if row.group == "produce-librdkafka"} - {"keyed-64-unbounded"}
        self.assertEqual(raw - {"keyed-64-alone"}, librdkafka)
        wanted = {"1kib-in-4kib", "1kib-in-16kib", "1kib-in-64kib", "1kib-in-1mib", "100b-in-4kib", "100b-in-16kib", "100b-in-64kib", "100b-in-1mib"}
        wanted |= {"connections-4", "connections-32", "connections-4-128kib", "partitions-64", "partitions-1000", "partitions-10000"}
        wanted |= {"keyed-64", "idempotent", "lz4"}
        self.assertEqual(librdkafka, wanted)

    def test_latency_is_measured_at_every_rate_and_number_of_partitions(self):
        for partitions in (1, 16, 64):
            self.assertIn(f"one-in-flight-{partitions}", self.names)
            for rate in (100, 1000, 10_000, 50_000):
                self.assertIn(f"open-{rate}-{partitions}", self.names)
        for rate in (100, 1000, 10_000, 50_000):
            self.assertIn(f"end-to-end-{rate}", self.names)

    def test_the_limit_stands_beside_reads_from_memory_alone(self):
        fetches = {row.name: row.servers for row in self.rows if row.group == "fetch"}
        self.assertEqual({name for name, servers in fetches.items() if rows.BARE in servers}, {"fetch-hot"})
        self.assertIn(rows.MILLRACE, fetches["fetch-hot"])

    def test_every_row_of_scheduling_is_judged_and_proven(self):
        judged = {row.name for row in self.rows if isinstance(row, rows.Versus) and row.judged and row.proof}
        self.assertEqual(judged, {"checkpoints", "retention", "index", "cold-reads"})
        self.assertGreaterEqual(rows.FULL.judged_pairs, 9)
        self.assertGreaterEqual(rows.FULL.pairs, 5)

    def test_variants_of_one_row_differ(self):
        for row in self.rows:
            if isinstance(row, rows.Versus):
                self.assertNotEqual(row.off.name, row.on.name)
                self.assertNotEqual(*((one.shards, one.settings, one.topic, one.args, one.beside) for one in (row.off, row.on)))


class ChoiceTest(unittest.TestCase):
    def test_groups_and_rows_are_chosen_by_name(self):
        some = rows.registry()
        self.assertEqual(rows.chosen(some, []), some)
        found = [row.name for row in rows.chosen(some, ["start", "open-100-1"])]
        self.assertEqual(sorted(found), ["open-100-1", "start-empty"])
        with self.assertRaisesRegex(ValueError, "no row or group nothing"):
            rows.chosen(some, ["start", "nothing"])


class EstimateTest(unittest.TestCase):
    def test_it_grows_with_rows_servers_and_pairs(self):
        some = rows.registry()
        one = rows.estimate_s(some[:1], [rows.MILLRACE], rows.FULL)
        self.assertGreater(rows.estimate_s(some[:2], [rows.MILLRACE], rows.FULL), one)
        self.assertGreater(rows.estimate_s(some[:1], [rows.MILLRACE, rows.BARE], rows.FULL), one)
        self.assertGreater(one, rows.estimate_s(some[:1], [rows.MILLRACE], rows.QUICK))

    def test_low_rates_are_measured_for_longer(self):
        self.assertEqual(rows.open_seconds(100, rows.FULL), 10)
        self.assertEqual(rows.open_seconds(50_000, rows.FULL), rows.FULL.seconds)


class ToolsTest(unittest.TestCase):
    def test_the_producers_last_line_is_read(self):
        text = (
            "100 records sent, 20.0 records/sec (0.02 MB/sec), 1.0 ms avg latency, 9.0 ms max latency.\n"
            "500000 records sent, 100000.5 records/sec (97.66 MB/sec), 12.34 ms avg latency, 250.00 ms max latency, 10 ms 50th, 30 ms 95th, 80 ms 99th, 120 ms 99.9th.\n"
        )
        found = measure.sent(text)
        self.assertAlmostEqual(found["mb_per_s"], 97.66 * 1.048576)
        self.assertEqual((found["p50_ms"], found["p99_ms"], found["p999_ms"]), (10, 80, 120))
        with self.assertRaises(measure.Hole):
            measure.sent("nothing")

    def test_the_consumers_columns_are_read_by_name(self):
        text = (
            "start.time, end.time, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, rebalance.time.ms, fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec\n"
            "2026-11-28 05:00:00:000, 2026-11-28 05:00:02:000, 488.2813, 200.1, 500000, 250000.0, 400, 1600, 305.1758, 312500.0\n"
        )
        self.assertAlmostEqual(measure.consumed(text)["mb_per_s"], 305.1758 * 1.048576)
        with self.assertRaises(measure.Hole):
            measure.consumed("WARN something, else\n")


if __name__ == "__main__":
    unittest.main()
