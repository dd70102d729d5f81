//! `write.caching`: an answer may come before its records are durable, and `flush.messages` and `flush.ms` say how many a power cut can take.

use millrace_io::sim::{Loss, Rates, World};
use millrace_sim::node::{Frames, Node, PRODUCE, config, framed, produce};

const REQUESTS: u32 = 1_000;

/// Sends records, one a request, as time goes on, and cuts the power once some are answered. How many were, and how many are there afterwards.
fn answered_and_kept(seed: u64, settings: &[&str]) -> (usize, usize) {
    let mut config = config(1, 1, 128 << 20);
    config.settings.extend(settings.iter().map(|setting| (*setting).to_owned()));
    let mut node = Node::in_world(World::new(seed, Rates::CALM), config);
    node.start().expect("the node starts");
    node.create("t", 1);
    let mut end = node.connect();
    let mut requests = (0..REQUESTS).map(|number| framed(PRODUCE, &produce("t", 0, number, 1, 100)));
    let (mut frames, mut answered) = (Frames::default(), 0);
    let some = node.run(60_000, |_| {
        if frames.is_sent() {
            frames.queue(&requests.next().unwrap_or_default());
        }
        answered += frames.exchange(&mut end).len();
        answered >= 100
    });
    assert!(some, "answers come");
    node.cluster.cut_power(Loss::All);
    node.start().expect("the node starts again");
    let mut end = node.connect();
    let (code, base) = node.produce(&mut end, &produce("t", 0, 0, 1, 100));
    assert_eq!(code, 0);
    (answered, base as usize)
}

#[test]
fn without_write_caching_nothing_answered_is_lost() {
    for seed in 0..10 {
        let (answered, kept) = answered_and_kept(seed, &[]);
        assert!(kept >= answered, "seed {seed}: {kept} of {answered}");
    }
}

#[test]
fn with_it_a_power_cut_takes_what_was_answered_early() {
    let lost = (0..10).map(|seed| answered_and_kept(seed, &["log.write.caching=true"])).filter(|(answered, kept)| kept < answered).count();
    assert!(lost > 5, "answers came before syncs in {lost} of 10 runs");
}

#[test]
fn flush_messages_bounds_what_it_takes() {
    for (messages, seed) in [1, 5].into_iter().flat_map(|messages| (0..10).map(move |seed| (messages, seed))) {
        let bound = format!("log.flush.interval.messages={messages}");
        let (answered, kept) = answered_and_kept(seed, &["log.write.caching=true", &bound]);
        assert!(kept + messages > answered, "seed {seed}: {kept} of {answered}, and fewer than {messages} may be lost");
    }
}

#[test]
fn flush_ms_of_zero_answers_nothing_early() {
    for seed in 0..10 {
        let (answered, kept) = answered_and_kept(seed, &["log.write.caching=true", "log.flush.interval.ms=0"]);
        assert!(kept >= answered, "seed {seed}: {kept} of {answered}");
    }
}
