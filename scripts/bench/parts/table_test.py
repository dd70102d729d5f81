"""The table says what the results say, and the plots draw it. Run: python3 -m unittest table_test"""

import unittest
import xml.etree.ElementTree as xml

import plots
import results
import rows
import table
from rows import BROKERS, FLUSH, KAFKA, MB, MILLRACE, P99, RAW, Row, Variant, Versus


def of(*entries):
    found = results.Results()
    for row, server, number, figures in entries:
        found.add({"row": row, "server": server, "pass": number, **({"hole": figures} if isinstance(figures, str) else {"result": figures})})
    return found


PRODUCE = Row("p", "produce-raw", "64 KiB", RAW, "produce", (MB, rows.CPU), plot="bars")
LATENCY = [Row(f"o-{rate}", "latency", f"{rate}/s", RAW, "open_loop", (P99,), BROKERS, {"rate": rate}, plot="curve:durable-1") for rate in (100, 1000)]
PROOF = rows.Figure("moved_mib", "moved", "MiB", 1)
JUDGED = Versus("c", "scheduling", "checkpoints", "scheduled", Variant("off"), Variant("on"), P99, judged=True, proof=PROOF)
SHARDS = Versus("s", "shards", "produce", "produce", Variant("1 shard"), Variant("2 shards", shards=2, home="other"), MB)


def cells(page, begins):
    line = next(line for line in page.splitlines() if line.startswith(f"| {begins}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


class ComparedTest(unittest.TestCase):
    def test_medians_spreads_and_ratios_of_pairs(self):
        found = of(*(("p", MILLRACE, at, {"mb_per_s": value, "server_cpu_s_per_gb": 1.25}) for at, value in enumerate((300, 100, 200))),
                   *(("p", KAFKA, at, {"mb_per_s": value}) for at, value in enumerate((100, 100, 50))))  # fmt: skip
        page = table.markdown([PRODUCE], found)
        # Pairs are 3, 1 and 4; the ratio of the medians would be 2.
        self.assertEqual(cells(page, "64 KiB"), ["64 KiB, MB/s", "", "200 (100-300)", "100 (50-100)", "", "", "3.00", ""])
        self.assertEqual(cells(page, "- server CPU")[2], "1.25 (1.25-1.25)")
        self.assertIn("## Produce throughput, raw wire", page)

    def test_a_hole_is_told_with_its_reason_and_what_cannot_be_is_a_dash(self):
        found = of(("o-100", MILLRACE, 0, {"p99_ms": 1.5}), ("o-100", FLUSH, 0, "not done\nin time"))
        page = table.markdown(LATENCY, found)
        self.assertEqual(cells(page, "100/s")[1:4], ["1.500", "", "hole 1"])
        self.assertIn("1. o-100, Kafka, flush per message: not done in time", page)
        self.assertNotIn("1000/s", page, "a row without results is left out")
        both = [PRODUCE, Row("q", "produce-raw", "idempotent", RAW, "produce", (MB,), BROKERS)]
        self.assertEqual(cells(table.markdown(both, of(("q", MILLRACE, 0, {"mb_per_s": 5}))), "idempotent")[1], table.NONE)

    def test_without_results_there_is_no_part(self):
        self.assertNotIn("##", table.markdown(rows.registry(), results.Results()))

    def test_a_quick_run_says_so(self):
        found = results.Results()
        found.add({"run": {"quick": True, "cores": 2}})
        self.assertIn("--quick", table.markdown([PRODUCE], found))


class VersusTest(unittest.TestCase):
    def judged(self, times, moved=8.0, unrest=0.0):
        entries = [("c", name, at, {"p99_ms": value, "moved_mib": proof}) for at in range(9) for name, value, proof in (("off", 2.0, 0.0), ("on", 2.0 * (times + unrest * at), moved))]
        return cells(table.markdown([JUDGED], of(*entries)), "checkpoints")

    def test_the_verdict_follows_the_rule(self):
        self.assertEqual(self.judged(1.1)[1:6], ["2.000 (2.000-2.000)", "2.200 (2.200-2.200)", "1.10", "0.00", "0.20"])
        self.assertEqual(self.judged(1.1)[-1], "holds")
        self.assertEqual(self.judged(1.5)[-1], "**moved too far**")
        self.assertEqual(self.judged(1.1, unrest=1.0)[-1], "pairs too far apart to judge")
        self.assertEqual(self.judged(1.1, moved=0.0)[-1], "not proven that on was on")

    def test_shards_are_named(self):
        found = of(("s", "1 shard", 0, {"mb_per_s": 100}), ("s", "2 shards", 0, {"mb_per_s": 150, "connection_shards": "1", "partition_shards": "0"}))
        self.assertEqual(cells(table.markdown([SHARDS], found), "produce"), ["produce, MB/s", "100", "150", "1.50", "1; 0"])

    def test_one_shard_has_no_column_of_shards(self):
        found = of(("d", "one", 0, {"mb_per_s": 100}), ("d", "other", 0, {"mb_per_s": 150}))
        row = Versus("d", "driver", "produce", "produce", Variant("one"), Variant("other"), MB)
        self.assertEqual(cells(table.markdown([row], found), "produce"), ["produce, MB/s", "100", "150", "1.50"])


class PlotsTest(unittest.TestCase):
    def drawn(self):
        entries = [("p", MILLRACE, at, {"mb_per_s": value}) for at, value in enumerate((100, 200, 400))]
        entries += [(f"o-{rate}", server, 0, {"p99_ms": rate / times}) for rate in (100, 1000) for server, times in ((MILLRACE, 100), (KAFKA, 50))]
        return {name: (group, xml.fromstring(svg)) for name, group, svg in plots.all_plots([PRODUCE, *LATENCY], of(*entries))}

    def test_each_plot_is_well_formed_and_belongs_to_its_group(self):
        drawn = self.drawn()
        self.assertEqual({name: group for name, (group, _) in drawn.items()}, {"produce-raw.svg": "produce-raw", "latency-durable-1.svg": "latency"})

    def test_a_bar_is_as_long_as_its_median_and_its_spread_goes_to_both_ends(self):
        _, svg = self.drawn()["produce-raw.svg"]
        space = "{http://www.w3.org/2000/svg}"
        bar = [rect for rect in svg.iter(f"{space}rect") if rect.get("fill") == plots.COLORS[MILLRACE]][-1]
        spread = [line for line in svg.iter(f"{space}line") if line.get("stroke") == "#222222"]
        left, length = float(bar.get("x")), float(bar.get("width"))
        self.assertEqual(len(spread), 1)
        self.assertAlmostEqual((float(spread[0].get("x1")) - left) / length, 0.5, 2)
        self.assertAlmostEqual((float(spread[0].get("x2")) - left) / length, 2.0, 2)

    def test_a_curve_goes_through_every_rate_and_higher_latency_is_higher_up(self):
        _, svg = self.drawn()["latency-durable-1.svg"]
        lines = {line.get("stroke"): line.get("points").split() for line in svg.iter("{http://www.w3.org/2000/svg}polyline")}
        self.assertEqual(set(lines), {plots.COLORS[MILLRACE], plots.COLORS[KAFKA]})
        (first, last), (peer, _) = ([tuple(map(float, point.split(","))) for point in lines[plots.COLORS[server]]] for server in (MILLRACE, KAFKA))
        self.assertLess(first[0], last[0])
        self.assertGreater(first[1], last[1], "ten times the latency")
        self.assertLess(peer[1], first[1], "twice the latency")

    def test_nothing_is_drawn_of_nothing(self):
        self.assertEqual(plots.all_plots(rows.registry(), results.Results()), [])

    def test_marks_are_round_and_reach_over_the_highest(self):
        for highest in (0.003, 1, 7, 99, 350, 1234.5, 1e6):
            marks = plots.steps(highest)
            self.assertGreaterEqual(marks[-1] * (1 + 1e-9), highest)
            self.assertTrue(5 <= len(marks) <= 12, marks)
        self.assertEqual(plots.decades(0.2, 30), [0.1, 1.0, 10.0, 100.0])

    def test_names_cannot_break_the_picture(self):
        row = Row("p", "produce-raw", "<b> & \"c\"", RAW, "produce", (MB,), plot="bars")
        svg = plots.bars("a < b", [row], of(("p", MILLRACE, 0, {"mb_per_s": 1})))
        self.assertIn("<b> & \"c\"", [text.text for text in xml.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")])


if __name__ == "__main__":
    unittest.main()
