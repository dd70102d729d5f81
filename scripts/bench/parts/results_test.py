"""The order of runs, pairs, spreads and the rule of scheduling. Run: python3 -m unittest results_test"""

import json
import unittest

import results


def line(row="r", server="s", number=0, **figures):
    return {"row": row, "server": server, "pass": number, "result": figures}


class OrderTest(unittest.TestCase):
    def test_passes_go_there_and_back(self):
        self.assertEqual([results.order("AB", number) for number in range(4)], [["A", "B"], ["B", "A"], ["A", "B"], ["B", "A"]])
        self.assertEqual(results.order(["a", "b", "c"], 1), ["c", "b", "a"])


class ReadTest(unittest.TestCase):
    def test_results_are_found_again_by_row_server_figure_and_pass(self):
        lines = [json.dumps({"run": {"cores": 2}}), "", json.dumps(line(number=0, x=1.5, shard="0 1")), json.dumps(line(number=1, x=2))]
        found = results.read(lines)
        self.assertEqual(found.run, {"cores": 2})
        self.assertEqual(found.passes("r", "s", "x"), {0: 1.5, 1: 2})
        self.assertEqual(found.passes("r", "s", "shard"), {}, "words are no numbers")
        self.assertEqual(found.words("r", "s", "shard"), ["0 1"])
        self.assertEqual(found.passes("r", "other", "x"), {})

    def test_what_is_no_result_is_told_with_its_line(self):
        for bad in ("nonsense", "[]", '{"row": "r"}', '{"row": "r", "server": "s", "pass": 0}', '{"row": "r", "server": "s", "pass": 0, "result": 3}'):
            with self.assertRaisesRegex(ValueError, "line 2", msg=bad):
                results.read([json.dumps(line()), bad])

    def test_a_hole_shows_only_where_there_is_no_result_at_all(self):
        found = results.read([json.dumps({"row": "r", "server": "s", "pass": 0, "hole": "late"})])
        self.assertEqual(found.hole("r", "s"), "late")
        found.add(line(number=1, x=1))
        self.assertIsNone(found.hole("r", "s"))

    def test_a_pass_with_a_result_is_done_and_a_row_with_two_holes_is_given_up(self):
        found = results.Results()
        found.add(line(number=0, x=1))
        self.assertTrue(found.is_done("r", "s", 0))
        self.assertFalse(found.is_done("r", "s", 1))
        for number in (1, 2):
            self.assertFalse(found.is_done("r", "s", 3))
            found.add({"row": "r", "server": "s", "pass": number, "hole": "late"})
        self.assertTrue(found.is_done("r", "s", 3))
        self.assertFalse(found.is_done("r", "t", 3))

    def test_a_result_in_the_place_of_a_hole_takes_it_away(self):
        found = results.Results()
        found.add({"row": "r", "server": "s", "pass": 0, "hole": "late"})
        found.add(line(number=0, x=1))
        self.assertFalse(found.gaps["r", "s"])


class PairsTest(unittest.TestCase):
    def test_only_passes_that_both_have_make_a_pair(self):
        self.assertEqual(results.pair_ratios({0: 2, 1: 9, 2: 6}, {0: 1, 2: 2, 3: 5}), [2, 3])
        self.assertEqual(results.pair_ratios({0: 2}, {0: 0}), [])

    def test_quartiles_apart_leave_out_what_stands_out(self):
        self.assertEqual(results.quartile_range([1.0]), 0)
        self.assertEqual(results.quartile_range([1, 2, 3, 4, 5]), 2)
        self.assertEqual(results.quartile_range([1, 2, 3, 4, 500]), 2)


class JudgeTest(unittest.TestCase):
    OFF = {number: 1.0 for number in range(9)}
    ON_PROOF, OFF_PROOF = {0: 10.0}, {0: 0.0}

    def judge(self, on, off=None, proofs=None):
        return results.judge(on, off or self.OFF, *(proofs or (self.ON_PROOF, self.OFF_PROOF)))

    def test_up_to_a_fifth_is_allowed_and_more_is_not(self):
        self.assertTrue(self.judge({number: 1.19 for number in range(9)}).passed)
        verdict = self.judge({number: 1.25 for number in range(9)})
        self.assertFalse(verdict.passed)
        self.assertAlmostEqual(verdict.moved, 0.25)
        self.assertEqual((verdict.allowed, verdict.spread), (0.20, 0))

    def test_pairs_that_differ_among_themselves_may_move_by_that_much(self):
        on = dict(enumerate([0.8, 0.9, 1.0, 1.1, 1.25, 1.4, 1.5, 1.6, 1.7]))
        verdict = self.judge(on)
        self.assertAlmostEqual(verdict.spread, 0.5)
        self.assertTrue(verdict.passed)
        on = dict(enumerate([1.4, 1.45, 1.5, 1.55, 1.6, 1.65, 1.7, 1.75, 1.8]))
        self.assertFalse(self.judge(on).passed, "all are slow, and alike")

    def test_faster_is_never_too_far(self):
        self.assertTrue(self.judge({number: 0.2 for number in range(9)}).passed)

    def test_a_pair_is_compared_with_its_own_other_half(self):
        # The machine gets slower by a half on the way; each pair is alike.
        off = {number: 1 + number / 16 for number in range(9)}
        self.assertAlmostEqual(self.judge(dict(off), off).moved, 0)

    def test_few_pairs_are_not_judged(self):
        verdict = self.judge({number: 9.0 for number in range(8)})
        self.assertIsNone(verdict.passed)
        self.assertEqual(verdict.pairs, 8)
        self.assertIsNone(self.judge({}))

    def test_pairs_too_far_apart_are_not_judged(self):
        on = dict(enumerate([0.1, 0.2, 1.0, 1.1, 1.2, 1.3, 2.3, 40.0, 50.0]))
        self.assertGreater(self.judge(on).spread, results.SPREAD_MAX)
        self.assertIsNone(self.judge(on).passed)
        on[6] = 1.9
        self.assertTrue(self.judge(on).passed)

    def test_without_the_proof_that_on_was_on_nothing_is_judged(self):
        on = {number: 1.0 for number in range(9)}
        for proofs in (({}, {}), ({0: 0.0}, {0: 0.0}), ({0: 10.0}, {0: 6.0})):
            verdict = self.judge(on, proofs=proofs)
            self.assertFalse(verdict.proven)
            self.assertIsNone(verdict.passed)
        self.assertTrue(self.judge(on, proofs=({0: 10.0}, {0: 4.0})).proven)


if __name__ == "__main__":
    unittest.main()
