//! A read-only map of a closed file, for tools and the inspector.
//!
//! Never of a file that a broker may cut (reading past its new end kills the process), never on a ring's thread (a page that is not in
//! memory blocks it).
//!
//! Knows nothing of what the bytes mean.

use crate::driver::IoError;
use memmap2::Mmap;
use std::fs::File;
use std::ops::Deref;
use std::path::Path;

/// The bytes of a file that no one changes any more.
#[derive(Debug)]
pub struct Map(Option<Mmap>);

impl Map {
    /// # Errors
    /// The system's: absent, not permitted, not a file.
    pub fn open(path: &Path) -> Result<Map, IoError> {
        let file = File::open(path)?;
        let about = file.metadata()?;
        if about.is_dir() {
            return Err(IoError(libc::EISDIR));
        }
        if about.len() == 0 {
            return Ok(Map(None)); // the system maps no empty range
        }
        // SAFETY: the caller's part (above) is that no one cuts or writes the file while this map lives; the map owns its pages until drop.
        let map = unsafe { Mmap::map(&file) }?;
        Ok(Map(Some(map)))
    }
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or(&[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_the_file_and_an_empty_file_is_an_empty_map() {
        let path = std::env::temp_dir().join(format!("millrace-io-map-{}", std::process::id()));
        std::fs::write(&path, b"closed").unwrap();
        assert_eq!(&*Map::open(&path).unwrap(), b"closed");
        std::fs::write(&path, b"").unwrap();
        assert_eq!(&*Map::open(&path).unwrap(), b"");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(Map::open(&path).unwrap_err(), IoError::NOT_FOUND);
        assert_eq!(Map::open(&std::env::temp_dir()).unwrap_err(), IoError(libc::EISDIR));
    }
}
