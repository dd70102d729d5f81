//! Damaged journals, copied before their files are used again: `<data dir>/damaged/<shard>-<first damaged entry>`, as they were found.
//!
//! The copy is for people and for what they try to get back from it; nothing here reads it. `millrace inspect` does, when it stands in a
//! data directory as `journal/<shard>`.
//!
//! Invariants: a copy bears its name when all of it is durable; it is made once and never removed here.

use millrace_base::ids::ShardId;
use millrace_io::{Disk, File, IoError, OpenHow};
use millrace_log::paths;
use std::path::Path;

/// Bytes that are copied at a time.
const PIECE_BYTES: usize = 1 << 20;

/// Copies the journal of a shard, in which `first` is the first damaged entry.
///
/// # Errors
/// The disk's: there is no whole copy.
pub fn keep(disk: &mut dyn Disk, data: &Path, shard: ShardId, first: u64) -> Result<(), IoError> {
    let (from, kept) = (paths::journal(data, shard), data.join("damaged"));
    let (to, unfinished) = (kept.join(format!("{shard}-{first}")), kept.join(format!("{shard}-{first}.unfinished")));
    match disk.list(&to) {
        Ok(_) => return Ok(()),
        Err(IoError::NOT_FOUND) => {}
        Err(error) => return Err(error),
    }
    disk.make_directories(&unfinished)?;
    for entry in disk.list(&from)?.iter().filter(|entry| !entry.is_directory) {
        copy(disk, &from.join(&entry.name), &unfinished.join(&entry.name))?;
    }
    disk.sync_directory(&unfinished)?;
    disk.rename(&unfinished, &to)?;
    disk.sync_directory(&kept)?;
    disk.sync_directory(data)?;
    log::error!("the journal in {} is damaged; a copy of it is kept in {}", from.display(), to.display());
    Ok(())
}

fn copy(disk: &mut dyn Disk, from: &Path, to: &Path) -> Result<(), IoError> {
    let source = disk.open(from, OpenHow::default())?;
    let target = match disk.open(to, OpenHow { write: true, create: true, ..OpenHow::default() }) {
        Ok(target) => target,
        Err(error) => {
            disk.close(source);
            return Err(error);
        }
    };
    let copied = copy_bytes(disk, source, target);
    disk.close(source);
    disk.close(target);
    copied
}

/// Bytes that cannot be read are the damage itself: they are zeros in the copy.
fn copy_bytes(disk: &mut dyn Disk, source: File, target: File) -> Result<(), IoError> {
    disk.truncate(target, 0)?;
    let len = disk.len(source)?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut place = 0;
    while place < len {
        let wanted = PIECE_BYTES.min(usize::try_from(len - place).unwrap_or(PIECE_BYTES));
        let read = disk.read(source, place, &mut piece[..wanted]).unwrap_or_else(|_| {
            piece[..wanted].fill(0);
            wanted
        });
        if read == 0 {
            break;
        }
        disk.write(target, place, &piece[..read])?;
        place += read as u64;
    }
    disk.sync(target)
}
