//! Compressed records, opened within a bound. The first byte is the codec, the next two the bound.

use crate::input::Input;
use crate::meter;
use millrace_log::codec::{Codec, CodecError, ZSTD_WINDOW_MAX};

pub fn run(input: &[u8]) {
    let mut choices = Input::new(input);
    let number = choices.u8() % 6;
    let max = usize::from(choices.u16()) + 1;
    let bytes = choices.rest();
    let Ok(codec) = Codec::from_number(number) else { return assert!(number > 4) };
    // The window of zstd; lz4's frames have blocks of up to 4 MiB, of which two are held, and tables of fixed size.
    let granted = 4 * max + 4 * bytes.len() + 2 * ZSTD_WINDOW_MAX as usize + (16 << 20);
    match meter::bounded(granted, || codec.decompress(bytes, max)) {
        Ok(opened) => {
            assert!(opened.len() <= max);
            assert_eq!(codec.decompress(bytes, opened.len()).as_deref(), Ok(opened.as_slice()), "the bound is not part of the answer");
            if let Some(less) = opened.len().checked_sub(1) {
                assert_eq!(codec.decompress(bytes, less), Err(CodecError::TooLarge { max: less }));
            }
        }
        Err(error) => assert!(!matches!(error, CodecError::Unknown { .. })),
    }
}
