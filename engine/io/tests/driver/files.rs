//! Promises about files.

use super::{Bench, DIRECT, Rig, WRITE, pattern};
use millrace_io::{Completion, File, IoError, Memory, Op, OpenHow, Wait};

pub fn what_was_written_is_read<R: Rig>(mut bench: Bench<R>) {
    for (name, how) in [("cached", WRITE), ("direct", DIRECT)] {
        let file = bench.open(name, how).unwrap();
        let (first, second) = (pattern(300 << 10, 1), pattern(8192, 2));
        bench.write(file, 0, &first, false);
        bench.write(file, 4096, &second, true);
        assert_eq!(bench.ask(Op::Sync { file }), Ok(0));
        let mut expected = first;
        expected[4096..4096 + 8192].copy_from_slice(&second);
        assert!(bench.read(file, 0, expected.len()) == expected);
        assert!(bench.read(file, 8192, 4096) == expected[8192..12288]);
        assert_eq!(bench.read(file, 300 << 10, 4096), b"");
        assert_eq!(bench.ask(Op::Close { file }), Ok(0));
        let again = bench.open(name, OpenHow { direct: how.direct, ..OpenHow::default() }).unwrap();
        assert!(bench.read(again, 0, expected.len()) == expected);
        let (result, memory) = {
            let from = bench.slice(&[0; 4096]);
            bench.run(Op::Write { file: again, place: 0, from, synced: false })
        };
        assert!(result == Err(IoError::BAD_FILE) && matches!(memory, Memory::Slice(_)), "opened for reading only");
        bench.ask(Op::Close { file: again }).unwrap();
    }
}

pub fn names_come_and_go<R: Rig>(mut bench: Bench<R>) {
    let (directory, root) = (bench.root.join("d"), bench.root.clone());
    bench.ask(Op::MakeDirectory { path: directory.clone() }).unwrap();
    for name in ["d/b", "d/a", "d/c"] {
        let file = bench.open(name, WRITE).unwrap();
        bench.write(file, 0, name.as_bytes(), false);
        bench.ask(Op::Close { file }).unwrap();
    }
    bench.ask(Op::SyncDirectory { path: directory.clone() }).unwrap();
    bench.ask(Op::SyncDirectory { path: root.clone() }).unwrap();
    bench.ask(Op::Rename { from: directory.join("b"), to: directory.join("a") }).unwrap();
    bench.ask(Op::Unlink { path: directory.join("c") }).unwrap();
    let names = |bench: &mut Bench<R>| -> Vec<(String, u64, bool)> {
        let path = bench.root.join("d");
        bench.driver.disk().list(&path).unwrap().into_iter().map(|e| (e.name, e.len, e.is_directory)).collect()
    };
    assert_eq!(names(&mut bench), [("a".to_string(), 3, false)]);
    let file = bench.open("d/a", OpenHow::default()).unwrap();
    assert_eq!(bench.read(file, 0, 10), b"d/b");
    // A name that is gone leaves the open file as it is.
    bench.ask(Op::Unlink { path: directory.join("a") }).unwrap();
    assert_eq!(bench.read(file, 0, 10), b"d/b");
    bench.ask(Op::Close { file }).unwrap();
    assert!(names(&mut bench).is_empty());
    bench.ask(Op::RemoveDirectory { path: directory.clone() }).unwrap();
    assert_eq!(bench.driver.disk().list(&directory), Err(IoError::NOT_FOUND));
}

pub fn a_wrong_name_is_told<R: Rig>(mut bench: Bench<R>) {
    let path = |bench: &Bench<R>, name: &str| bench.root.join(name);
    assert_eq!(bench.open("absent", OpenHow::default()), Err(IoError::NOT_FOUND));
    assert_eq!(bench.open("absent/file", WRITE), Err(IoError::NOT_FOUND));
    let exclusive = OpenHow { exclusive: true, ..WRITE };
    let file = bench.open("made", exclusive).unwrap();
    assert_eq!(bench.open("made", exclusive), Err(IoError::EXISTS));
    assert_eq!(bench.open("made/below", WRITE), Err(IoError(libc::ENOTDIR)));
    assert_eq!(bench.open("zero\0byte", WRITE), Err(IoError(libc::EINVAL)));
    bench.ask(Op::Close { file }).unwrap();
    let op = Op::Rename { from: path(&bench, "absent"), to: path(&bench, "made") };
    assert_eq!(bench.ask(op), Err(IoError::NOT_FOUND));
    let op = Op::Unlink { path: path(&bench, "absent") };
    assert_eq!(bench.ask(op), Err(IoError::NOT_FOUND));
    let op = Op::MakeDirectory { path: path(&bench, "made") };
    assert_eq!(bench.ask(op), Err(IoError::EXISTS));
    let op = Op::RemoveDirectory { path: path(&bench, "made") };
    assert_eq!(bench.ask(op), Err(IoError(libc::ENOTDIR)));
    let op = Op::SyncDirectory { path: path(&bench, "absent") };
    assert_eq!(bench.ask(op), Err(IoError::NOT_FOUND));
    let (outer, inner) = (path(&bench, "outer"), path(&bench, "outer/inner"));
    bench.driver.disk().make_directories(&inner).unwrap();
    assert_eq!(bench.ask(Op::RemoveDirectory { path: outer.clone() }), Err(IoError(libc::ENOTEMPTY)));
    assert_eq!(bench.ask(Op::Unlink { path: outer }), Err(IoError(libc::EISDIR)));
}

pub fn a_file_is_cut_and_grows<R: Rig>(mut bench: Bench<R>) {
    for (name, how) in [("cached", WRITE), ("direct", DIRECT)] {
        let file = bench.open(name, how).unwrap();
        bench.write(file, 0, &pattern(16384, 3), false);
        bench.ask(Op::Truncate { file, len: 5000 }).unwrap();
        assert_eq!(bench.driver.disk().len(file), Ok(5000));
        assert!(bench.read(file, 0, 16384) == pattern(5000, 3));
        bench.ask(Op::Truncate { file, len: 12288 }).unwrap();
        let mut expected = pattern(5000, 3);
        expected.resize(12288, 0);
        assert!(bench.read(file, 0, 16384) == expected, "what was cut does not come back");
        bench.write(file, 20480, &pattern(4096, 4), false);
        expected.resize(20480, 0);
        expected.extend(pattern(4096, 4));
        assert!(bench.read(file, 0, 32768) == expected, "a gap reads as zeros");
    }
}

/// More at once than the small ring holds.
pub fn many_operations_complete_once_each<R: Rig>(mut bench: Bench<R>) {
    const BLOCKS: usize = 200;
    let file = bench.open("many", DIRECT).unwrap();
    bench.write(file, 0, &vec![0; BLOCKS * 4096], true);
    let mut tokens = Vec::new();
    for block in 0..BLOCKS {
        let from = bench.slice(&pattern(4096, block as u8));
        tokens.push(bench.submit(Op::Write { file, place: block as u64 * 4096, from, synced: block % 50 == 0 }));
    }
    for (block, token) in tokens.into_iter().enumerate() {
        let Completion { result, memory, .. } = bench.await_token(token);
        let Memory::Slice(slice) = memory else { panic!("a write gives its slice back") };
        assert!(*slice == pattern(4096, block as u8)[..]);
        if result.unwrap() < 4096 {
            bench.write(file, block as u64 * 4096, &pattern(4096, block as u8), false);
        }
    }
    for block in 0..BLOCKS {
        assert!(bench.read(file, block as u64 * 4096, 4096) == pattern(4096, block as u8));
    }
    bench.driver.poll(Wait::No, &mut bench.done);
    assert!(bench.done.is_empty(), "nothing completes twice");
    assert_eq!(bench.pool.used(), 0, "all memory came back");
}

pub fn blocking_and_ring_see_the_same_bytes<R: Rig>(mut bench: Bench<R>) {
    for (name, how) in [("cached", WRITE), ("direct", DIRECT)] {
        let path = bench.root.join(name);
        let file = bench.driver.disk().open(&path, how).unwrap();
        bench.driver.disk().write(file, 100, &pattern(10_000, 5)).unwrap();
        let ring = bench.read(file, 0, 16384);
        assert!(ring.len() == 10_100 && ring[100..] == pattern(10_000, 5) && ring[..100] == [0; 100]);
        bench.write(file, 4096, &pattern(4096, 6), false);
        let mut back = vec![0; 5000];
        assert_eq!(bench.driver.disk().read(file, 4000, &mut back), Ok(5000));
        assert!(back[96..4192] == pattern(4096, 6) && back[..96] == ring[4000..4096]);
        bench.driver.disk().sync(file).unwrap();
        bench.driver.disk().truncate(file, 50).unwrap();
        assert_eq!(bench.read(file, 0, 4096), [0; 50]);
        bench.driver.disk().close(file);
        let renamed = bench.root.join("renamed");
        bench.driver.disk().rename(&path, &renamed).unwrap();
        let again = bench.open("renamed", how).unwrap();
        assert_eq!(bench.driver.disk().len(again), Ok(50));
        bench.driver.disk().close(again);
        bench.driver.disk().unlink(&renamed).unwrap();
        let root = bench.root.clone();
        bench.driver.disk().sync_directory(&root).unwrap();
    }
    let path = bench.root.join("lock");
    let mut other = bench.rig.driver();
    assert_eq!(bench.driver.disk().lock(&path), Ok(true));
    assert_eq!(other.disk().lock(&path), Ok(false));
    let root = bench.root.clone();
    let (free, all) = bench.driver.disk().space(&root).unwrap();
    assert!(free > 0 && free <= all);
}

pub fn an_unknown_file_gives_the_memory_back<R: Rig>(mut bench: Bench<R>) {
    let file = File(77);
    let (into, from) = (bench.space(4096), bench.slice(b"x"));
    let (result, memory) = bench.run(Op::Read { file, place: 0, into, at: 0, len: 4096 });
    assert!(result == Err(IoError::BAD_FILE) && matches!(memory, Memory::Space(_)));
    let (result, memory) = bench.run(Op::Write { file, place: 0, from, synced: true });
    assert!(result == Err(IoError::BAD_FILE) && matches!(memory, Memory::Slice(_)));
    for op in [Op::Sync { file }, Op::Truncate { file, len: 0 }, Op::Close { file }] {
        assert_eq!(bench.ask(op), Err(IoError::BAD_FILE));
    }
    assert_eq!(bench.driver.disk().len(file), Err(IoError::BAD_FILE));
}
