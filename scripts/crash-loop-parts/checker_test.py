"""The checker convicts every planted crime, by its name, and acquits an honest log. Run: python3 checker_test.py"""

import unittest

import checker
import payload
from payload import Ack, Seen, Trim

IDEMPOTENT, PLAIN = 0, 4


def row(offset, producer, sequence):
    return (offset, payload.key(producer, sequence), payload.value(producer, sequence))


class CheckerTest(unittest.TestCase):
    def setUp(self):
        """Ten records of an idempotent producer and ten of another, in turns, all acknowledged."""
        self.log = [row(at, (IDEMPOTENT, PLAIN)[at % 2], at // 2) for at in range(20)]
        self.acks = [Ack("t", 0, at, (IDEMPOTENT, PLAIN)[at % 2], at // 2) for at in range(20)]
        self.served = [Seen(*ack) for ack in self.acks]

    def kinds(self, served=None):
        return set(checker.judge({("t", 0): self.log}, self.acks, served or [], {IDEMPOTENT}).counts)

    def renumber(self):
        self.log = [(at, key, value) for at, (_, key, value) in enumerate(self.log)]

    def test_an_honest_log_is_acquitted(self):
        self.assertEqual(self.kinds(self.served), set())

    def test_an_unacknowledged_record_may_be_there_or_not(self):
        self.acks.pop(7)
        self.assertEqual(self.kinds(), set())
        self.log.pop()
        self.acks.pop()
        self.assertEqual(self.kinds(), set())

    def test_a_lost_tail_is_convicted(self):
        self.log.pop()
        self.assertEqual(self.kinds(), {"lost"})

    def test_a_lost_record_in_the_middle_is_convicted_even_when_offsets_close_up(self):
        self.log.pop(8)
        self.renumber()
        self.assertIn("lost", self.kinds())
        self.assertIn("moved", self.kinds())

    def test_an_emptied_partition_is_convicted(self):
        self.log = []
        self.assertEqual(self.kinds(), {"lost"})

    def test_a_gap_in_offsets_is_convicted(self):
        gone = self.log.pop(8)
        self.acks = [ack for ack in self.acks if ack.offset != gone[0]]
        self.assertEqual(self.kinds(), {"gap"})

    def test_a_log_that_does_not_begin_at_zero_is_convicted(self):
        self.log, self.acks = self.log[2:], self.acks[2:]
        self.assertEqual(self.kinds(), {"gap"})

    def test_a_doubled_record_of_an_idempotent_producer_is_convicted(self):
        self.log.append(row(20, IDEMPOTENT, 9))
        self.assertEqual(self.kinds(), {"doubled"})

    def test_a_doubled_record_of_a_plain_producer_is_acquitted(self):
        self.log.append(row(20, PLAIN, 9))
        self.assertEqual(self.kinds(), set())

    def test_a_record_doubled_across_partitions_is_convicted(self):
        logs = {("t", 0): self.log, ("t", 1): [row(0, IDEMPOTENT, 3)]}
        found = checker.judge(logs, self.acks, [], {IDEMPOTENT})
        self.assertEqual(set(found.counts), {"doubled"})

    def test_reordered_records_of_an_idempotent_producer_are_convicted(self):
        self.log[4], self.log[6] = row(4, IDEMPOTENT, 3), row(6, IDEMPOTENT, 2)
        self.acks = [ack for ack in self.acks if ack.offset not in (4, 6)]
        self.assertEqual(self.kinds(), {"reordered"})

    def test_acknowledgements_of_a_plain_producer_out_of_order_are_convicted(self):
        self.log[5], self.log[7] = row(5, PLAIN, 3), row(7, PLAIN, 2)
        self.acks[5], self.acks[7] = Ack("t", 0, 5, PLAIN, 3), Ack("t", 0, 7, PLAIN, 2)
        self.assertEqual(self.kinds(), {"reordered"})

    def test_they_are_not_where_batches_were_refused_but_those_of_an_idempotent_one_are(self):
        self.log[5], self.log[7] = row(5, PLAIN, 3), row(7, PLAIN, 2)
        self.acks[5], self.acks[7] = Ack("t", 0, 5, PLAIN, 3), Ack("t", 0, 7, PLAIN, 2)
        self.assertEqual(checker.judge({("t", 0): self.log}, self.acks, [], {IDEMPOTENT}, refused=True).counts, {})
        self.log[4], self.log[6] = row(4, IDEMPOTENT, 3), row(6, IDEMPOTENT, 2)
        self.acks[4], self.acks[6] = Ack("t", 0, 4, IDEMPOTENT, 3), Ack("t", 0, 6, IDEMPOTENT, 2)
        self.assertEqual(checker.judge({("t", 0): self.log}, self.acks, [], {IDEMPOTENT}, refused=True).counts, {"reordered": 2})

    def test_swapped_records_are_convicted_of_moving(self):
        self.log[3], self.log[4] = row(3, IDEMPOTENT, 2), row(4, PLAIN, 1)
        self.assertEqual(self.kinds(), {"moved"})

    def test_an_altered_byte_is_convicted(self):
        offset, key, value = self.log[6]
        self.log[6] = (offset, key, value[:14] + bytes([value[14] ^ 1]) + value[15:])
        self.assertIn("altered", self.kinds())

    def test_an_altered_key_is_convicted(self):
        self.log[6] = (6, b"other", self.log[6][2])
        self.assertIn("altered", self.kinds())

    def test_a_null_value_is_convicted(self):
        self.log[6] = (6, self.log[6][1], None)
        self.assertIn("altered", self.kinds())

    def test_a_record_that_was_served_and_is_gone_is_convicted_without_any_acknowledgement(self):
        self.acks = []
        self.log.pop()
        self.assertEqual(self.kinds(self.served), {"lost"})

    def test_an_acknowledgement_without_offset_needs_the_record_once(self):
        self.acks[6] = Ack("t", 0, -1, *payload.identity(self.log[6][2]))
        self.assertEqual(self.kinds(), set())
        self.log[6] = row(6, PLAIN, 99)
        self.assertIn("lost", self.kinds())

    def test_a_mark_that_goes_back_or_vanishes_is_convicted(self):
        before = {("t", 0): 10, ("t", 1): 5}
        self.assertEqual(checker.went_back("high watermark", before, {("t", 0): 10, ("t", 1): 7}), [])
        self.assertEqual(len(checker.went_back("high watermark", before, {("t", 0): 9, ("t", 1): 5})), 1)
        self.assertEqual(len(checker.went_back("committed offset", before, {("t", 0): 10})), 1)

    def deleted_below(self, start):
        self.log = [row for row in self.log if row[0] >= start]
        return checker.judge({("t", 0): self.log}, self.acks, self.served, {IDEMPOTENT}, {("t", 0): start})

    def test_what_lies_below_the_log_start_is_excused_and_nothing_else(self):
        self.assertEqual(set(self.deleted_below(5).counts), set())
        self.log.pop(2)
        self.assertEqual(set(self.deleted_below(5).counts), {"gap", "lost"})

    def test_a_log_start_is_judged_by_what_was_asked_and_acknowledged(self):
        trims = [Trim(0, 7, -1), Trim(0, 7, 7), Trim(0, 9, -1), Trim(1, 50, -1)]
        self.assertEqual([one.kind for start in (7, 8, 9) for one in checker.judge_trims(trims, {0: start})], [])
        self.assertEqual([one.kind for one in checker.judge_trims(trims, {0: 10})], ["deleted"])
        self.assertEqual([one.kind for one in checker.judge_trims(trims, {0: 6})], ["came back"])
        self.assertEqual([one.kind for one in checker.judge_trims([], {0: 1})], ["deleted"])

    def test_retention_that_leaves_too_little_is_convicted(self):
        left = sum(checker.stored(key, value) for _, key, value in self.log)
        self.assertEqual(checker.judge_retention(left, 0, 1 << 20), [])
        self.assertEqual(checker.judge_retention(left, 9, 1000), [])
        self.assertEqual([one.kind for one in checker.judge_retention(left, 9, 1 << 20)], ["deleted"])

    def test_topics_that_vanish_and_topics_that_return_are_convicted(self):
        made, deleted = {3: payload.FILLED}, {3: payload.DELETED}
        name = payload.churned(3)[0]
        self.assertEqual(checker.judge_topics(made, {name}, made), [])
        self.assertEqual(checker.judge_topics(deleted, set(), deleted), [])
        self.assertEqual([one.kind for one in checker.judge_topics(made, set(), made)], ["lost"])
        self.assertEqual([one.kind for one in checker.judge_topics(deleted, {name}, deleted)], ["came back"])
        again = {3: payload.DELETED, 3 + payload.CHURN_NAMES: payload.CREATING}
        self.assertEqual(checker.judge_topics(deleted, {name}, again), [], "being made anew")
        self.assertEqual(checker.judge_topics(made, set(), {3: payload.DELETING}), [], "being deleted")

    def test_a_topic_that_holds_what_its_name_held_before_is_convicted(self):
        records = [(at, *pair) for at, pair in enumerate(payload.churned(15)[1])]
        self.assertEqual(checker.judge_churned(15, records), [])
        self.assertEqual([one.kind for one in checker.judge_churned(15, records[:-1])], ["lost"])
        before = [(at, *pair) for at, pair in enumerate(payload.churned(3)[1])]
        self.assertEqual([one.kind for one in checker.judge_churned(15, before)], ["lost"])

    def test_restarts_that_take_too_long_are_convicted(self):
        self.assertEqual(checker.judge_restarts([], 3.0), [])
        self.assertEqual(checker.judge_restarts([0.5, 2.9, 9.0], 3.0), [])
        self.assertEqual([one.kind for one in checker.judge_restarts([0.5, 3.1, 9.0], 3.0)], ["slow"])

    def test_all_violations_are_counted_although_few_are_shown(self):
        self.log = []
        found = checker.judge({("t", 0): self.log}, self.acks, [], {IDEMPOTENT})
        self.assertEqual((found.counts["lost"], len(found)), (20, checker.MOST_SHOWN))


if __name__ == "__main__":
    unittest.main()
