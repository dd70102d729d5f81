//! The offline inspector of journals and segments.
