//! Files in memory, with nothing that fails.

use millrace_io::{Disk, Entry, File, IoError, OpenHow};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Clone, Default)]
pub struct MemoryDisk {
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    open: BTreeMap<u32, PathBuf>,
    next: u32,
}

impl MemoryDisk {
    fn opened(&mut self, file: File) -> Result<&mut Vec<u8>, IoError> {
        let path = self.open.get(&file.0).ok_or(IoError::BAD_FILE)?;
        self.files.get_mut(path).ok_or(IoError::NOT_FOUND)
    }
}

impl Disk for MemoryDisk {
    fn list(&mut self, path: &Path) -> Result<Vec<Entry>, IoError> {
        let inside = self.files.iter().filter(|(file, _)| file.parent() == Some(path));
        let entry = |(file, bytes): (&PathBuf, &Vec<u8>)| {
            let name = file.file_name().and_then(|name| name.to_str())?.to_owned();
            Some(Entry { name, len: bytes.len() as u64, is_directory: false })
        };
        Ok(inside.filter_map(entry).collect())
    }

    fn open(&mut self, path: &Path, how: OpenHow) -> Result<File, IoError> {
        if how.create {
            self.files.entry(path.to_owned()).or_default();
        } else if !self.files.contains_key(path) {
            return Err(IoError::NOT_FOUND);
        }
        self.next += 1;
        self.open.insert(self.next, path.to_owned());
        Ok(File(self.next))
    }

    fn close(&mut self, file: File) {
        self.open.remove(&file.0);
    }

    fn len(&mut self, file: File) -> Result<u64, IoError> {
        self.opened(file).map(|bytes| bytes.len() as u64)
    }

    fn read(&mut self, file: File, place: u64, into: &mut [u8]) -> Result<usize, IoError> {
        let bytes = self.opened(file)?;
        let rest = usize::try_from(place).ok().and_then(|place| bytes.get(place..)).unwrap_or_default();
        let len = rest.len().min(into.len());
        into[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write(&mut self, file: File, place: u64, from: &[u8]) -> Result<(), IoError> {
        let bytes = self.opened(file)?;
        let end = place as usize + from.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[place as usize..end].copy_from_slice(from);
        Ok(())
    }

    fn sync(&mut self, file: File) -> Result<(), IoError> {
        self.opened(file).map(drop)
    }

    fn sync_directory(&mut self, _: &Path) -> Result<(), IoError> {
        Ok(())
    }

    fn truncate(&mut self, file: File, len: u64) -> Result<(), IoError> {
        self.opened(file).map(|bytes| bytes.resize(len as usize, 0))
    }

    fn rename(&mut self, from: &Path, to: &Path) -> Result<(), IoError> {
        let bytes = self.files.remove(from).ok_or(IoError::NOT_FOUND)?;
        self.files.insert(to.to_owned(), bytes);
        Ok(())
    }

    fn unlink(&mut self, path: &Path) -> Result<(), IoError> {
        self.files.remove(path).map(drop).ok_or(IoError::NOT_FOUND)
    }

    fn make_directories(&mut self, _: &Path) -> Result<(), IoError> {
        Ok(())
    }

    fn remove_directory(&mut self, _: &Path) -> Result<(), IoError> {
        Ok(())
    }

    fn lock(&mut self, _: &Path) -> Result<bool, IoError> {
        Ok(true)
    }

    fn space(&mut self, _: &Path) -> Result<(u64, u64), IoError> {
        Ok((1 << 40, 1 << 40))
    }
}
