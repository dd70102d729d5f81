//! What a simulated world promises: the same seed gives the same trace, and disks lose what they may lose and nothing else.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use millrace_base::clock::Nanos;
use millrace_io::sim::{Fault, Happening, Loss, On, Rates, SimDriver, World, Wrong};
use millrace_io::{Completion, Disk, Driver, File, IoError, Memory, Op, OpenHow, Pool, Socket, Wait};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const WRITE: OpenHow = OpenHow { write: true, create: true, exclusive: false, direct: true };
const LIMIT: Nanos = Nanos(3_600_000_000_000);

/// A shard that writes, syncs and echoes.
struct Echo {
    driver: SimDriver,
    pool: Pool,
    file: Option<File>,
    sockets: Vec<Socket>,
    echoed: usize,
    listener: millrace_io::Listener,
}

impl Echo {
    fn new(world: &World, node: u32, address: &str) -> Echo {
        let mut driver = world.driver(node);
        driver.disk().make_directories(Path::new("/d")).unwrap();
        driver.submit(Op::Open { path: PathBuf::from(format!("/d/{}", driver.shard().0)), how: WRITE }, 1);
        let (listener, _) = driver.listen(address.parse().unwrap(), true).unwrap();
        driver.submit(Op::Accept { listener }, 2);
        Echo { driver, pool: Pool::new(1 << 20), file: None, sockets: Vec::new(), echoed: 0, listener }
    }

    fn receive(&mut self, at: usize) {
        let into = self.pool.take(4096);
        self.driver.submit(Op::Receive { socket: self.sockets[at], into, at: 0, len: 4096, whole: false }, 100 + at as u64);
    }

    fn turn(&mut self) {
        let mut completions = Vec::new();
        self.driver.poll(Wait::Until(Nanos::NEVER), &mut completions);
        for Completion { token, result, memory, more } in completions {
            match (token, memory) {
                (1, _) => self.file = Some(File(result.unwrap())),
                (2, _) => {
                    self.sockets.push(Socket(result.unwrap()));
                    self.receive(self.sockets.len() - 1);
                    if !more {
                        self.driver.submit(Op::Accept { listener: self.listener }, 2);
                    }
                }
                (token, Memory::Space(mut space)) if result.is_ok_and(|count| count > 0) => {
                    let slice = space.freeze(result.unwrap() as usize);
                    self.echoed += slice.len();
                    if let Some(file) = self.file {
                        let from = self.pool.take(4096).push(&[7; 4096]);
                        self.driver.submit(Op::Write { file, place: 0, from, synced: false }, 3);
                        self.driver.submit(Op::Sync { file }, 4);
                    }
                    let at = (token - 100) as usize;
                    self.driver.submit(Op::Send { socket: self.sockets[at], from: vec![slice] }, 5);
                    self.receive(at);
                }
                (_, Memory::None | Memory::Slice(_) | Memory::Slices(_) | Memory::Space(_)) => {}
            }
        }
    }
}

fn story(seed: u64) -> (u64, Vec<Happening>, u64) {
    let world = World::new(seed, Rates::default());
    world.keep_happenings();
    let mut shards: Vec<Echo> = (1..=3).map(|node| Echo::new(&world, node, "127.0.0.1:9092")).collect();
    let mut clients: Vec<_> = (0..6).map(|_| world.connect("127.0.0.1:9092".parse().unwrap())).collect();
    let mut sent = 0;
    let done = std::cell::Cell::new(0);
    let finished = world.run_until(
        LIMIT,
        |id| {
            if let Some(shard) = shards.iter_mut().find(|shard| shard.driver.shard() == id) {
                shard.turn();
            }
            for client in &mut clients {
                if sent < 400_000 {
                    sent += client.send(&[1; 999]).unwrap();
                }
                drop(client.receive().unwrap());
            }
            done.set(shards.iter().map(|shard| shard.echoed).sum());
        },
        || done.get() >= 400_000,
    );
    assert!(finished);
    (world.trace(), world.happenings(), world.now().0)
}

#[test]
fn same_seed_gives_the_same_trace() {
    let first = story(42);
    assert!(first.1.len() > 500);
    assert!(first == story(42));
    let traces: BTreeSet<u64> = (0..20).map(|seed| story(seed).0).collect();
    assert_eq!(traces.len(), 20, "other seeds give other traces");
}

/// Runs one operation to its end.
fn run(world: &World, driver: &mut SimDriver, op: Op) -> (Result<u32, IoError>, Memory) {
    driver.submit(op, 1);
    let mut completions = Vec::new();
    loop {
        driver.poll(Wait::Until(Nanos::NEVER), &mut completions);
        if let Some(completion) = completions.pop() {
            return (completion.result, completion.memory);
        }
        assert!(world.step());
    }
}

fn open(world: &World, driver: &mut SimDriver, path: &str) -> File {
    File(run(world, driver, Op::Open { path: PathBuf::from(path), how: WRITE }).0.unwrap())
}

fn write(world: &World, driver: &mut SimDriver, file: File, place: u64, byte: u8, synced: bool) -> Result<u32, IoError> {
    let from = Pool::new(0).take(4096).push(&[byte; 4096]);
    run(world, driver, Op::Write { file, place, from, synced }).0
}

fn content(world: &World, path: &str) -> Result<Vec<u8>, IoError> {
    let mut disk = world.disk(1);
    let file = disk.open(Path::new(path), OpenHow::default())?;
    let mut bytes = vec![0; disk.len(file)? as usize];
    let count = disk.read(file, 0, &mut bytes)?;
    assert_eq!(count, bytes.len());
    Ok(bytes)
}

/// One world with a file of a block that is durable, and what was then done to it before the power went.
fn after_cut(seed: u64, loss: Loss, act: impl FnOnce(&World, &mut SimDriver, File)) -> Result<Vec<u8>, IoError> {
    let world = World::new(seed, Rates::CALM);
    let mut driver = world.driver(1);
    let file = open(&world, &mut driver, "/f");
    write(&world, &mut driver, file, 0, 1, true).unwrap();
    run(&world, &mut driver, Op::SyncDirectory { path: PathBuf::from("/") }).0.unwrap();
    act(&world, &mut driver, file);
    world.cut_power(1, loss);
    assert!(!world.is_alive(driver.shard()));
    drop(driver);
    content(&world, "/f")
}

#[test]
fn a_power_cut_keeps_what_was_synced_and_a_seeded_part_of_the_rest() {
    let unsynced = |world: &World, driver: &mut SimDriver, file| {
        write(world, driver, file, 0, 2, false).unwrap();
    };
    assert_eq!(after_cut(1, Loss::All, unsynced).unwrap(), [1; 4096]);
    assert_eq!(after_cut(1, Loss::Nothing, unsynced).unwrap(), [2; 4096]);
    let mut kinds = BTreeSet::new();
    for seed in 0..50 {
        for loss in [Loss::Seeded, Loss::Suffix, Loss::TornLast] {
            let left = after_cut(seed, loss, unsynced).unwrap();
            assert!(left.chunks(512).all(|sector| sector == [1; 512] || sector == [2; 512]));
            kinds.insert((loss as u8, left.contains(&1), left.contains(&2)));
        }
    }
    assert!(kinds.contains(&(Loss::Seeded as u8, true, true)) && kinds.contains(&(Loss::TornLast as u8, true, true)));
    assert!(kinds.contains(&(Loss::Suffix as u8, true, false)) && kinds.contains(&(Loss::Suffix as u8, false, true)));
    for seed in 0..50 {
        let synced = after_cut(seed, Loss::Seeded, |world, driver, file| {
            write(world, driver, file, 0, 2, false).unwrap();
            run(world, driver, Op::Sync { file }).0.unwrap();
        });
        assert_eq!(synced.unwrap(), [2; 4096]);
        let durable = after_cut(seed, Loss::Seeded, |world, driver, file| {
            write(world, driver, file, 4096, 3, true).unwrap();
        });
        assert_eq!(durable.unwrap(), [[1; 4096], [3; 4096]].concat(), "a synced write is durable, its length too");
    }
}

#[test]
fn a_write_in_flight_at_a_cut_is_there_in_part() {
    let mut torn = 0;
    for seed in 0..100 {
        let left = after_cut(seed, Loss::Nothing, |_, driver, file| {
            let from = Pool::new(0).take(4096).push(&[2; 4096]);
            driver.submit(Op::Write { file, place: 0, from, synced: true }, 9);
            driver.poll(Wait::No, &mut Vec::new());
        });
        let new = left.unwrap().chunks(512).filter(|sector| sector[0] == 2).count();
        torn += usize::from(new > 0 && new < 8);
    }
    assert!(torn > 10, "{torn}");
}

#[test]
fn a_sync_in_flight_with_a_write_does_not_cover_it() {
    let mut lost = 0;
    for seed in 0..40 {
        let left = after_cut(seed, Loss::All, |world, driver, file| {
            let from = Pool::new(0).take(4096).push(&[2; 4096]);
            driver.submit(Op::Write { file, place: 0, from, synced: false }, 8);
            driver.submit(Op::Sync { file }, 9);
            let mut completions = Vec::new();
            while completions.len() < 2 {
                driver.poll(Wait::Until(Nanos::NEVER), &mut completions);
                assert!(completions.len() == 2 || world.step());
            }
        });
        lost += usize::from(left.unwrap() == [1; 4096]);
    }
    assert_eq!(lost, 40);
}

#[test]
fn a_name_without_a_synced_directory_may_be_lost() {
    let world = World::new(5, Rates::CALM);
    let mut driver = world.driver(1);
    let file = open(&world, &mut driver, "/g");
    write(&world, &mut driver, file, 0, 1, true).unwrap();
    world.cut_power(1, Loss::All);
    drop(driver);
    assert_eq!(content(&world, "/g"), Err(IoError::NOT_FOUND));
}

#[test]
fn a_kill_keeps_what_had_completed_and_frees_what_was_held() {
    let world = World::new(6, Rates::CALM);
    let mut driver = world.driver(1);
    assert_eq!(driver.disk().lock(Path::new("/lock")), Ok(true));
    assert_eq!(world.disk(1).lock(Path::new("/lock")), Ok(false));
    let file = open(&world, &mut driver, "/f");
    write(&world, &mut driver, file, 0, 4, false).unwrap();
    let (listener, address) = driver.listen("127.0.0.1:0".parse().unwrap(), false).unwrap();
    driver.submit(Op::Accept { listener }, 1);
    let mut client = world.connect(address);
    let pool = Pool::new(0);
    for _ in 0..5 {
        driver.poll(Wait::Until(Nanos::NEVER), &mut Vec::new());
        world.step();
    }
    driver.submit(Op::Receive { socket: Socket(0), into: pool.take(4096), at: 0, len: 4096, whole: false }, 2);
    driver.poll(Wait::No, &mut Vec::new());
    assert_eq!(pool.used(), 4096);
    world.kill(1);
    assert_eq!(pool.used(), 0);
    drop(driver);
    while world.step() {}
    assert_eq!(client.receive(), Err(IoError::RESET));
    assert_eq!(world.disk(1).lock(Path::new("/lock")), Ok(true));
    assert_eq!(content(&world, "/f").unwrap(), [4; 4096]);
    assert!(world.driver(1).listen(address, false).is_ok());
}

#[test]
fn faults_come_when_they_are_told_to() {
    let world = World::new(7, Rates::CALM);
    let mut driver = world.driver(1);
    let file = open(&world, &mut driver, "/wal");
    let fault = |on, after, wrong| world.add_fault(1, Fault { path: "wal".into(), on, after, times: 1, wrong });
    fault(On::Write, 1, Wrong::Error(libc::ENOSPC));
    assert_eq!(write(&world, &mut driver, file, 0, 1, false), Ok(4096));
    assert!(write(&world, &mut driver, file, 4096, 1, false).unwrap_err().is_full());
    assert_eq!(write(&world, &mut driver, file, 4096, 2, false), Ok(4096));
    fault(On::Sync, 0, Wrong::Error(libc::EIO));
    assert_eq!(run(&world, &mut driver, Op::Sync { file }).0, Err(IoError::DEVICE));
    assert_eq!(run(&world, &mut driver, Op::Sync { file }).0, Ok(0));
    fault(On::Directory, 0, Wrong::Error(libc::EIO));
    assert_eq!(run(&world, &mut driver, Op::Sync { file }).0, Ok(0), "not of a file");
    fault(On::Write, 0, Wrong::Lost);
    assert_eq!(write(&world, &mut driver, file, 0, 9, true), Ok(4096));
    assert_eq!(content(&world, "/wal").unwrap()[0], 1);
    fault(On::Write, 0, Wrong::Misdirected(4096));
    assert_eq!(write(&world, &mut driver, file, 0, 8, true), Ok(4096));
    assert_eq!(content(&world, "/wal").unwrap(), [[1; 4096], [8; 4096]].concat());
    fault(On::Write, 0, Wrong::Flipped);
    assert_eq!(write(&world, &mut driver, file, 0, 0, true), Ok(4096));
    assert_eq!(content(&world, "/wal").unwrap()[..4096].iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
    assert!(world.flip(1, Path::new("/wal"), 4096, 0) && !world.flip(1, Path::new("/wal"), 1 << 20, 0));
    assert_eq!(content(&world, "/wal").unwrap()[4096], 9);
    assert!(world.spoil(1, Path::new("/wal"), 4000, 1));
    assert_eq!(content(&world, "/wal"), Err(IoError::DEVICE));
    assert_eq!(write(&world, &mut driver, file, 0, 5, true), Ok(4096));
    assert_eq!(content(&world, "/wal").unwrap()[0], 5);
    world.set_capacity(1, Path::new("/elsewhere"), Some(0));
    assert_eq!(write(&world, &mut driver, file, 4096, 5, true), Ok(4096));
    world.set_capacity(1, Path::new("/"), Some(8192));
    assert_eq!(driver.disk().space(Path::new("/wal")), Ok((0, 8192)));
    assert_eq!(driver.disk().space(Path::new("/elsewhere/wal")), Ok((0, 0)));
    assert!(write(&world, &mut driver, file, 8192, 5, true).unwrap_err().is_full());
    world.heal(1);
    assert_eq!(write(&world, &mut driver, file, 8192, 5, true), Ok(4096));
}

/// As on a ring: the write is one step, its sync the next.
#[test]
fn a_synced_write_whose_sync_fails_is_written_and_never_durable() {
    for (wrong, told) in [(Wrong::Error(libc::EIO), Err(IoError::DEVICE)), (Wrong::Lost, Ok(4096))] {
        for loss in [Loss::All, Loss::Nothing] {
            let left = after_cut(3, loss, |world, driver, file| {
                world.add_fault(1, Fault { path: "/f".into(), on: On::Sync, after: 0, times: 1, wrong });
                assert_eq!(write(world, driver, file, 0, 2, true), told);
                assert_eq!(content(world, "/f").unwrap(), [2; 4096], "it reads as written");
                if told.is_err() {
                    run(world, driver, Op::Sync { file }).0.unwrap(); // which covers nothing that the failed one was to cover
                }
            });
            let kept = if loss == Loss::Nothing { 2 } else { 1 };
            assert_eq!(left.unwrap(), [kept; 4096], "{wrong:?} {loss:?}");
        }
    }
}

#[test]
fn clocks_and_bells_are_the_worlds() {
    let world = World::new(8, Rates::CALM);
    let mut driver = world.driver(1);
    let before = driver.wall();
    world.step_wall(1, -5000);
    assert_eq!(driver.wall(), before - 5000);
    driver.poll(Wait::Until(Nanos::NEVER), &mut Vec::new());
    assert!(!world.step() && world.runnable().is_empty(), "nothing will ever happen");
    driver.doorbell().ring();
    assert!(world.step());
    assert_eq!(world.runnable(), [driver.shard()]);
    driver.poll(Wait::Until(Nanos::NEVER), &mut Vec::new());
    driver.poll(Wait::Until(driver.now().plus_ms(5)), &mut Vec::new());
    let asleep = driver.now();
    assert!(world.step());
    assert_eq!(driver.now(), asleep.plus_ms(5));
}

#[test]
fn no_one_listening_resets_the_client() {
    let world = World::new(9, Rates::CALM);
    let mut client = world.connect("127.0.0.1:1".parse().unwrap());
    assert_eq!(client.send(b"hello"), Ok(5));
    while world.step() {}
    assert_eq!(client.receive(), Err(IoError::RESET));
    assert_eq!(client.receive(), Ok(Some(Vec::new())));
    assert_eq!(client.send(b"hello"), Err(IoError(libc::EPIPE)));
}

/// A recorded run: "one" is synced, "two" is not, and the file is removed.
fn recorded() -> millrace_io::sim::Recording {
    let world = World::new(1, Rates::CALM);
    let mut disk = world.disk(1);
    let how = OpenHow { write: true, create: true, ..OpenHow::default() };
    let file = disk.open(Path::new("/f"), how).unwrap();
    disk.sync_directory(Path::new("/")).unwrap();
    assert!(world.record(1).is_none());
    disk.write(file, 0, &[1; 1024]).unwrap();
    disk.sync(file).unwrap();
    disk.write(file, 0, &[2; 1024]).unwrap();
    disk.unlink(Path::new("/f")).unwrap();
    world.record(1).unwrap()
}

/// What a node reads from the disk that is left; None: no file.
fn left(disk: millrace_io::sim::CutDisk) -> Option<(u8, u8)> {
    let world = World::after(2, Nanos(0), 1, disk, 0);
    let mut disk = world.disk(1);
    let file = disk.open(Path::new("/f"), OpenHow::default()).ok()?;
    let mut bytes = vec![0; 1024];
    (disk.read(file, 0, &mut bytes) == Ok(1024)).then(|| (bytes[0], bytes[512]))
}

#[test]
fn a_recorded_disk_can_be_cut_at_every_moment_and_in_every_way() {
    let recording = recorded();
    assert_eq!(recording.len(), 4);
    let moments: Vec<_> = recording.replay().collect();
    let items: Vec<_> = moments.iter().map(|moment| (moment.items(), moment.writes())).collect();
    // Before the write, before its sync (two sectors and a length), before the second write, before the removal.
    assert_eq!(items, [(0, 0), (3, 1), (0, 0), (2, 1)]);
    let last = &moments[3];
    let ways: Vec<_> = (0..4).map(|kept| left(last.by_items(kept)).unwrap()).collect();
    assert_eq!(ways, [(1, 1), (2, 1), (1, 2), (2, 2)]);
    assert_eq!([0, 1].map(|kept| left(last.by_writes(kept)).unwrap()), [(1, 1), (2, 2)]);
}

#[test]
fn a_write_under_way_may_be_there_in_part_at_a_recorded_moment() {
    let world = World::new(1, Rates::CALM);
    let mut driver = world.driver(1);
    let how = OpenHow { write: true, create: true, ..OpenHow::default() };
    let file = driver.disk().open(Path::new("/f"), how).unwrap();
    driver.disk().write(file, 0, &[1; 512]).unwrap();
    driver.disk().sync(file).unwrap();
    driver.disk().sync_directory(Path::new("/")).unwrap();
    world.record(1);
    driver.submit(Op::Write { file, place: 0, from: Pool::new(1 << 20).take(512).push(&[2; 512]), synced: true }, 1);
    driver.poll(Wait::Until(Nanos::NEVER), &mut Vec::new());
    // Ten microseconds later, while it is under way, there is another change.
    let mut clock = world.driver(2);
    clock.poll(Wait::Until(Nanos(world.now().0 + 10_000)), &mut Vec::new());
    world.step();
    driver.disk().make_directories(Path::new("/d")).unwrap();
    clock.poll(Wait::Until(Nanos::NEVER), &mut Vec::new());
    world.step();
    let recording = world.record(1).unwrap();
    let moment = recording.replay().next().unwrap();
    assert_eq!(moment.items(), 1, "the sector of the write");
}
