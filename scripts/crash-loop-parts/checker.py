"""Judges what a broker holds after crashes against what it had told its clients.

`judge` gets the whole log of every partition, the acknowledgements, and what tailing consumers were served, and returns the
violations of these promises, each as (kind, line):
  gap       offsets of a partition are dense from its log start on, which is 0 where nothing deletes
  altered   every record is byte for byte what some producer sent (its checksum holds, key and value follow from its identity)
  lost      every acknowledged record is there; every record served to a consumer is still at its offset
  moved     an acknowledged record is at exactly the offset that was acknowledged
  doubled   a record of an idempotent producer is there once
  reordered sequences of an idempotent producer increase along a partition; of one that is not (one request in flight), the offsets
            acknowledged increase with the sequence, unless batches were refused: while one of them waits to be sent again, librdkafka
            2.16 sends the next one

What lies below a log start that may move is excused, and the log start itself is judged: by `judge_trims` where DeleteRecords moves it, by
`judge_retention` where retention does. `judge_topics` judges which topics exist.
Records are judged as they come and not kept: of each, its partition keeps eight bytes, so that tens of millions fit.
`judge_restarts` judges how long restarts took.
Marks: `went_back` compares high watermarks, or committed offsets with the last acknowledged commits.
Knows nothing of brokers, processes and files: checker_test.py plants each crime.
"""

import statistics
from array import array
from collections import namedtuple

import payload

Violation = namedtuple("Violation", "kind line")
MOST_SHOWN = 5
OVERHEAD = 100  # bytes of a record in a batch of its own, at most
SEQUENCE_BITS = 40
NOBODY = -1


class Convictions(list):
    """Violations; of each kind all are counted, the first few kept as lines."""

    def __init__(self):
        super().__init__()
        self.counts = {}

    def add(self, kind, line):
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if self.counts[kind] <= MOST_SHOWN:
            self.append(Violation(kind, line))


def judge(logs, acks, served, idempotent, starts=None, refused=False):
    """logs: {(topic, partition): iterable of (offset, key, value)} as read from the log start; acks: [payload.Ack]; served: [payload.Seen];
    idempotent: the set of producers that are; starts: {(topic, partition): log start} where it may have moved; refused: batches were,
    so that producers that are not idempotent had to send them again."""
    starts = starts or {}
    found = Convictions()
    sent = {}  # idempotent producer -> a byte for each sequence that is somewhere
    held = {place: Held(found, *place, log, sent, idempotent, starts.get(place, 0)) for place, log in logs.items()}
    _check_acks(found, acks, held, starts)
    _check_ack_order(found, acks, idempotent if refused else None)
    for one in served:
        if one.offset < starts.get((one.topic, one.partition), 0):
            continue
        who = held[(one.topic, one.partition)].at(one.offset) if (one.topic, one.partition) in held else None
        if who != (one.producer, one.sequence):
            found.add("lost", f"a consumer was served {_who(one)} at {_where(one)}, now there is {who}")
    return found


class Held:
    """Who is where in one partition, judged while it is read."""

    def __init__(self, found, topic, partition, log, sent, idempotent, start):
        self.start, self.who = start, array("q")
        last = {}
        for offset, key, value in log:
            where = f"{topic}-{partition} offset {offset}"
            following = self.start + len(self.who)
            if offset != following:
                found.add("gap", f"{where}: offset {following} was next")
                # What follows keeps its place; what comes again takes it.
                self.who.extend([NOBODY] * (offset - following))
                del self.who[max(offset - self.start, 0):]
            who = payload.identity(value)
            if who is None or (key, value) != (payload.key(*who), payload.value(*who)):
                found.add("altered", f"{where}: not a record that a producer sent (identity {who})")
                self.who.append(NOBODY)
                continue
            producer, sequence = who
            self.who.append(producer << SEQUENCE_BITS | sequence)
            if producer not in idempotent:
                continue
            seen = sent.setdefault(producer, bytearray())
            seen.extend(bytes(max(0, sequence + 1 - len(seen))))
            if seen[sequence]:
                found.add("doubled", f"{where}: producer {producer} sequence {sequence} is there already")
            elif sequence < last.get(producer, -1):
                found.add("reordered", f"{where}: producer {producer} sequence {sequence} after {last[producer]}")
            seen[sequence] = 1
            last[producer] = max(sequence, last.get(producer, -1))

    def at(self, offset):
        """(producer, sequence), or None."""
        at = offset - self.start
        who = self.who[at] if 0 <= at < len(self.who) else NOBODY
        return None if who == NOBODY else (who >> SEQUENCE_BITS, who & (1 << SEQUENCE_BITS) - 1)

    def which(self, wanted):
        """Those of (producer, sequence) that are anywhere."""
        numbers = {producer << SEQUENCE_BITS | sequence: (producer, sequence) for producer, sequence in wanted}
        return {numbers[number] for number in set(numbers).intersection(self.who)}

    def offsets_of(self, producer, sequence):
        """Looks through all."""
        wanted = producer << SEQUENCE_BITS | sequence
        return [self.start + at for at, who in enumerate(self.who) if who == wanted]


def _check_acks(found, acks, held, starts):
    unknown = {}  # place -> acknowledgements that did not say where
    for ack in acks:
        place = (ack.topic, ack.partition)
        start = starts.get(place, 0)
        if start > 0 and ack.offset < start:
            continue  # deleted, or acknowledged without an offset where it may have been
        if ack.offset < 0:
            unknown.setdefault(place, []).append(ack)
        elif place not in held or held[place].at(ack.offset) != (ack.producer, ack.sequence):
            offsets = held[place].offsets_of(ack.producer, ack.sequence) if place in held else []
            text = f"{_who(ack)} was acknowledged at {_where(ack)}"
            if offsets:
                found.add("moved", f"{text} and is at {offsets}")
            else:
                found.add("lost", f"{text} and is nowhere in the partition")
    for place, of_place in unknown.items():
        there = held[place].which([(ack.producer, ack.sequence) for ack in of_place]) if place in held else set()
        for ack in of_place:
            if (ack.producer, ack.sequence) not in there:
                found.add("lost", f"{_who(ack)} was acknowledged, it was not said where, and is nowhere in {ack.topic}-{ack.partition}")


def _check_ack_order(found, acks, producers):
    """producers: those whose order is judged; None: all."""
    last = {}
    for ack in sorted(acks, key=lambda one: (one.producer, one.topic, one.partition, one.sequence)):
        if ack.offset < 0 or (producers is not None and ack.producer not in producers):
            continue
        line = (ack.producer, ack.topic, ack.partition)
        if ack.offset <= last.get(line, -1):
            found.add("reordered", f"{_who(ack)} was acknowledged at {_where(ack)}, an earlier sequence at {last[line]}")
        last[line] = max(ack.offset, last.get(line, -1))


def went_back(what, before, now):
    """Violations where a mark in `now` is below the one in `before`, or is gone."""
    found = Convictions()
    for place, mark in sorted(before.items()):
        if now.get(place, -1) < mark:
            found.add("went back", f"{what} of {place} was {mark}, is {now.get(place)}")
    return found


def judge_trims(trims, starts):
    """trims: [payload.Trim]; starts: {partition: log start}. DeleteRecords deletes what was acknowledged, and never more than was asked."""
    found = Convictions()
    for partition, start in sorted(starts.items()):
        of_one = [trim for trim in trims if trim.partition == partition]
        asked = max((trim.asked for trim in of_one), default=0)
        done = max((trim.low for trim in of_one), default=0)
        if start > asked:
            found.add("deleted", f"partition {partition} begins at {start}, and at most {asked} was asked for")
        if start < done:
            found.add("came back", f"partition {partition} begins at {start}, and {done} was acknowledged as its log start")
    return found


def stored(key, value):
    """Bytes that a record takes at most, compressed or not."""
    return len(key) + len(value) + OVERHEAD


def judge_retention(left, start, retained):
    """What retention by bytes leaves of a partition: more than `retained` bytes. `left`: the sum of `stored` over its records."""
    found = Convictions()
    if start > 0 and left < retained:
        found.add("deleted", f"retention left at most {left} bytes from offset {start} on, {retained} were to stay")
    return found


def judge_topics(before, listed, after):
    """before, after: {generation: state} as noted before and after the broker listed its topics; listed: names. Generations in use when the
    list was made may be either way."""
    found, last = Convictions(), {}
    for generation, state in after.items():
        name = payload.churned(generation)[0]
        if generation >= last.get(name, (-1, 0))[0]:
            last[name] = (generation, state)
    for name, (generation, state) in sorted(last.items()):
        if before.get(generation) in (payload.MADE, payload.FILLED) and state in (payload.MADE, payload.FILLED) and name not in listed:
            found.add("lost", f"topic {name} (generation {generation}) was made and is not there")
        if before.get(generation) == payload.DELETED and state == payload.DELETED and name in listed:
            found.add("came back", f"topic {name} (generation {generation}) was deleted and is there")
    return found


def judge_churned(generation, log):
    """The whole log [(offset, key, value)] of a topic that was filled: its records, and none of the topic that had its name before."""
    found = Convictions()
    name, records = payload.churned(generation)
    if [(key, value) for _, key, value in log] != records:
        held = [payload.identity(value) for _, _, value in log]
        found.add("lost", f"topic {name} (generation {generation}) holds {held}, not the {len(records)} records that were acknowledged")
    return found


def judge_restarts(seconds, most):
    """seconds: of each restart, from the kill to the first acknowledged record; most: what their median may be."""
    found = Convictions()
    if seconds and statistics.median(seconds) > most:
        found.add("slow", f"the median restart took {statistics.median(seconds):.2f} s, at most {most:g} s are allowed")
    return found


def _who(one):
    return f"producer {one.producer} sequence {one.sequence}"


def _where(one):
    return f"{one.topic}-{one.partition} offset {one.offset}"
