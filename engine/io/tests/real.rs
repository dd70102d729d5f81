//! What the drivers of the system promise beyond the simulated one, the one on io_uring and the portable one: waking across threads, jobs beside
//! them, a sync that fails, and ownership when they go.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use millrace_base::clock::Nanos;
use millrace_io::{
    Config, Driver, File, IoError, Memory, Op, OpenHow, Pool, PortableDriver, Slice, Socket, UringDriver, Wait, job, process, system,
};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

type Make = fn() -> Box<dyn Driver>;

fn uring() -> Box<dyn Driver> {
    Box::new(UringDriver::new(Config::default()).unwrap())
}

fn portable() -> Box<dyn Driver> {
    Box::new(PortableDriver::new().unwrap())
}

macro_rules! both {
    ($($promise:ident)*) => {
        mod on_uring {
            $(#[test] fn $promise() { super::$promise(super::uring); })*
        }

        mod portable_one {
            $(#[test] fn $promise() { super::$promise(super::portable); })*
        }
    };
}

both! {
    no_ring_is_lost_whenever_it_comes
    a_ring_wakes_a_sleeper_without_a_deadline
    a_driver_that_goes_takes_back_what_it_holds
    a_job_runs_beside_the_driver_and_wakes_it
    a_driver_that_goes_ends_its_jobs
    a_synced_write_whose_sync_fails_has_failed
}

/// A lost wake-up would leave work that is published unseen until the far deadline.
fn no_ring_is_lost_whenever_it_comes(driver: Make) {
    const ROUNDS: u64 = 30_000;
    let mut driver = driver();
    let bells: Vec<_> = (0..2).map(|_| driver.doorbell()).collect();
    let published: Arc<[AtomicU64; 2]> = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let seen: Arc<[AtomicU64; 2]> = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let stop = Arc::new(AtomicBool::new(false));
    let ringers: Vec<_> = bells
        .into_iter()
        .enumerate()
        .map(|(i, bell)| {
            let (published, seen, stop) = (Arc::clone(&published), Arc::clone(&seen), Arc::clone(&stop));
            std::thread::spawn(move || {
                for round in 1..=ROUNDS {
                    // Relaxed, so that only the doorbell makes it visible in time.
                    published[i].store(round, Ordering::Relaxed);
                    bell.ring();
                    // A pause of changing length moves the ring across the sleeper's steps.
                    for _ in 0..(round * 37) % 200 {
                        std::hint::spin_loop();
                    }
                    while round % 3 == 0 && seen[i].load(Ordering::Relaxed) < round && !stop.load(Ordering::Relaxed) {
                        std::thread::yield_now();
                    }
                }
            })
        })
        .collect();
    let mut completions = Vec::new();
    while (0..2).any(|i| seen[i].load(Ordering::Relaxed) < ROUNDS) {
        let start = driver.now();
        driver.poll(Wait::Until(start.plus_ms(20_000)), &mut completions);
        if driver.now() >= start.plus_ms(20_000) {
            stop.store(true, Ordering::Relaxed);
            panic!("asleep while work was published");
        }
        for i in 0..2 {
            seen[i].store(published[i].load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
    for ringer in ringers {
        ringer.join().unwrap();
    }
    assert!(completions.is_empty(), "the doorbell is no completion");
}

fn a_ring_wakes_a_sleeper_without_a_deadline(driver: Make) {
    let mut driver = driver();
    let bell = driver.doorbell();
    let asleep = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&asleep);
    let ringer = std::thread::spawn(move || {
        while !flag.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        bell.ring();
    });
    asleep.store(true, Ordering::SeqCst);
    driver.poll(Wait::Until(Nanos::NEVER), &mut Vec::new());
    ringer.join().unwrap();
}

fn a_driver_that_goes_takes_back_what_it_holds(driver: Make) {
    let pool = Pool::new(1 << 20);
    let mut driver = driver();
    let (listener, bound) = driver.listen("127.0.0.1:0".parse().unwrap(), false).unwrap();
    driver.submit(Op::Accept { listener }, 1);
    let _client = TcpStream::connect(bound).unwrap();
    let mut completions = Vec::new();
    while completions.is_empty() {
        driver.poll(Wait::Until(driver.now().plus_ms(1000)), &mut completions);
    }
    let socket = Socket(completions[0].result.unwrap());
    driver.submit(Op::Receive { socket, into: pool.take(4096), at: 0, len: 4096, whole: false }, 2);
    driver.submit(Op::Readable { socket }, 3);
    driver.poll(Wait::No, &mut completions);
    // One that the kernel has never seen.
    driver.submit(Op::Receive { socket, into: pool.take(4096), at: 0, len: 4096, whole: false }, 4);
    let start = system::now();
    drop(driver);
    assert_eq!(pool.used(), 0, "cancelled and given back, not leaked");
    assert!(system::now().since(start).as_secs() < 2);
}

/// The kernel keeps aside completions that find no room.
#[test]
fn no_completion_is_lost_when_they_outnumber_the_ring() {
    const OPERATIONS: u64 = 3000;
    let mut driver = UringDriver::new(Config { submissions: 4, completions: 8 }).unwrap();
    let (listener, bound) = driver.listen("127.0.0.1:0".parse().unwrap(), false).unwrap();
    driver.submit(Op::Accept { listener }, OPERATIONS);
    let _client = TcpStream::connect(bound).unwrap();
    let mut completions = Vec::new();
    while completions.is_empty() {
        driver.poll(Wait::Until(driver.now().plus_ms(1000)), &mut completions);
    }
    let socket = Socket(completions.pop().unwrap().result.unwrap());
    let slice: Slice = Pool::new(0).take(4096).push(b"x");
    for token in 0..OPERATIONS {
        driver.submit(Op::Send { socket, from: vec![slice.clone()] }, token);
    }
    for _ in 0..10_000 {
        driver.poll(Wait::Until(driver.now().plus_ms(10)), &mut completions);
        if completions.len() as u64 == OPERATIONS {
            break;
        }
    }
    let mut tokens: Vec<_> = completions.iter().map(|c| c.token).collect();
    tokens.sort_unstable();
    assert!(tokens.into_iter().eq(0..OPERATIONS), "each once");
    assert!(completions.iter().all(|c| c.result == Ok(1)));
}

/// The job ends only when the driver has done something else meanwhile, and its end wakes a driver that sleeps without a deadline.
fn a_job_runs_beside_the_driver_and_wakes_it(driver: Make) {
    let core = process::cores()[0];
    std::thread::spawn(move || {
        assert!(process::pin(core));
        let mut driver = driver();
        let (go, goes) = std::sync::mpsc::channel();
        let (job, product) = job(move || {
            goes.recv().unwrap();
            (process::cores(), std::thread::current().name().map(str::to_owned))
        });
        driver.submit(Op::Run { job }, 1);
        let mut completions = Vec::new();
        driver.submit(Op::MakeDirectory { path: "/".into() }, 2);
        while completions.is_empty() {
            driver.poll(Wait::Until(driver.now().plus_ms(1000)), &mut completions);
        }
        assert_eq!(completions.remove(0).token, 2);
        go.send(()).unwrap();
        // The ring of what completed before may come after it, and end a wait by itself.
        while completions.is_empty() {
            driver.poll(Wait::Until(Nanos::NEVER), &mut completions);
        }
        assert_eq!(completions.remove(0).token, 1);
        let (cores, name) = product.take().unwrap();
        assert!(cores.contains(&core) && name.as_deref() == Some("jobs"));
        cores
    })
    .join()
    .map(|cores| assert_eq!(cores, process::cores(), "not only where the shard is pinned"))
    .unwrap();
}

fn a_driver_that_goes_ends_its_jobs(driver: Make) {
    let pool = Pool::new(1 << 20);
    let mut driver = driver();
    for token in 0..3 {
        let held = pool.take(4096);
        let (job, _) = job(move || {
            std::thread::sleep(std::time::Duration::from_millis(20));
            held.capacity()
        });
        driver.submit(Op::Run { job }, token);
    }
    drop(driver);
    assert_eq!(pool.used(), 0);
}

/// The write goes well and the sync does not: a device without a sync answers EINVAL to it.
fn a_synced_write_whose_sync_fails_has_failed(driver: Make) {
    let mut driver = driver();
    let pool = Pool::new(1 << 20);
    let mut one = |op: Op| {
        driver.submit(op, 1);
        let mut completions = Vec::new();
        while completions.is_empty() {
            driver.poll(Wait::Until(Nanos::NEVER), &mut completions);
        }
        let completion = completions.remove(0);
        (completion.result, completion.memory)
    };
    let how = OpenHow { write: true, ..OpenHow::default() };
    let file = File(one(Op::Open { path: "/dev/null".into(), how }).0.unwrap());
    let from = pool.take(4096).push(&[1; 4096]);
    assert_eq!(one(Op::Write { file, place: 0, from: from.clone(), synced: false }).0, Ok(4096));
    let (result, memory) = one(Op::Write { file, place: 0, from, synced: true });
    assert_eq!(result, Err(IoError(libc::EINVAL)));
    assert!(matches!(memory, Memory::Slice(_)), "its memory comes back");
}

/// Opening a pipe to read waits for its writer, as a disk may let a read wait.
#[test]
fn what_waits_for_the_disk_does_not_hold_up_a_durable_write() {
    const WAITING: u64 = 40;
    let folder = std::env::temp_dir().join(format!("millrace-held-up-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let pipe = folder.join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut driver = PortableDriver::new().unwrap();
    let mut completions = Vec::new();
    let how = OpenHow { write: true, create: true, ..OpenHow::default() };
    driver.submit(Op::Open { path: folder.join("file"), how }, WAITING);
    while completions.is_empty() {
        driver.poll(Wait::Until(driver.now().plus_ms(1000)), &mut completions);
    }
    let file = File(completions.remove(0).result.unwrap());
    for token in 0..WAITING {
        driver.submit(Op::Open { path: pipe.clone(), how: OpenHow::default() }, token);
    }
    for _ in 0..10 {
        let from = Pool::new(1 << 20).take(4096).push(b"durable");
        driver.submit(Op::Write { file, place: 0, from, synced: true }, WAITING);
        while completions.is_empty() {
            driver.poll(Wait::Until(Nanos::NEVER), &mut completions);
        }
        let completion = completions.remove(0);
        assert_eq!((completion.token, completion.result), (WAITING, Ok(7)), "it alone");
    }
    let writer = std::fs::OpenOptions::new().write(true).open(&pipe).unwrap();
    while (completions.len() as u64) < WAITING {
        driver.poll(Wait::Until(Nanos::NEVER), &mut completions);
    }
    assert!(completions.iter().all(|completion| completion.result.is_ok()), "each in its turn");
    drop((writer, driver));
    std::fs::remove_dir_all(&folder).unwrap();
}
