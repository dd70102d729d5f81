//! How a struct is read off the wire: the `Field` trait, its leaves, and the `message!` macro that declares a struct with its versions.
//!
//! A declaration is a Kafka message schema line by line: `name: Type [versions] null [versions] tag N = default;`. A field outside its versions
//! keeps its default (the type's own unless stated); `null` says in which versions null is allowed; `tag` places it in the tagged section.
//! Struct and field names are those of Kafka's schemas, so that they can be looked up there.
//!
//! Invariants: `size_min` <= the bytes that `read` takes whenever it succeeds; it is what bounds an array's count.
//! Knows nothing of any particular message.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_possible_wrap)]

use millrace_base::ids::Uuid;

use super::reader::{ByteRange, DecodeError, Reader};

/// What decides how bytes are laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    pub version: i16,
    /// Compact lengths and tagged sections (KIP-482).
    pub flexible: bool,
}

/// A value that can be read.
pub trait Field<'a>: Sized {
    /// `nullable`: whether this version allows null; only types that can hold it ask.
    fn read(reader: &mut Reader<'a>, nullable: bool) -> Result<Self, DecodeError>;

    /// The least number of bytes that a value takes.
    fn size_min(shape: Shape) -> usize;
}

/// A value that null can stand for; `None` is null.
pub trait Nullable<'a>: Sized {
    fn read_nullable(reader: &mut Reader<'a>) -> Result<Option<Self>, DecodeError>;

    fn size_min(shape: Shape) -> usize;
}

macro_rules! fixed_fields {
    ($($ty:ty, $read:ident, $size:literal;)*) => {$(
        impl<'a> Field<'a> for $ty {
            fn read(reader: &mut Reader<'a>, _nullable: bool) -> Result<Self, DecodeError> {
                reader.$read()
            }

            fn size_min(_shape: Shape) -> usize {
                $size
            }
        }
    )*};
}

fixed_fields! {
    bool, bool, 1;
    i8, i8, 1;
    i16, i16, 2;
    i32, i32, 4;
    i64, i64, 8;
    Uuid, uuid, 16;
}

macro_rules! nullable_fields {
    ($([$($generic:tt)*] $ty:ty, $read:ident, $classic:literal;)*) => {$(
        impl<'a, $($generic)*> Nullable<'a> for $ty {
            fn read_nullable(reader: &mut Reader<'a>) -> Result<Option<Self>, DecodeError> {
                reader.$read()
            }

            fn size_min(shape: Shape) -> usize {
                if shape.flexible { 1 } else { $classic }
            }
        }

        impl<'a, $($generic)*> Field<'a> for $ty {
            fn read(reader: &mut Reader<'a>, _nullable: bool) -> Result<Self, DecodeError> {
                let at = reader.at();
                Self::read_nullable(reader)?.ok_or(DecodeError::Null { at })
            }

            fn size_min(shape: Shape) -> usize {
                <Self as Nullable>::size_min(shape)
            }
        }
    )*};
}

nullable_fields! {
    [] &'a str, string, 2;
    [] ByteRange, bytes, 4;
    [T: Field<'a>] Vec<T>, array, 4;
}

impl<'a, T: Nullable<'a>> Field<'a> for Option<T> {
    fn read(reader: &mut Reader<'a>, nullable: bool) -> Result<Self, DecodeError> {
        let at = reader.at();
        let value = T::read_nullable(reader)?;
        if value.is_none() && !nullable { Err(DecodeError::Null { at }) } else { Ok(value) }
    }

    fn size_min(shape: Shape) -> usize {
        T::size_min(shape)
    }
}

/// Declares structs and how they are read; see the module's first lines.
macro_rules! message {
    ($(
        $(#[$meta:meta])*
        $name:ident $(<$lt:lifetime>)? {
            $(
                $(#[$field_meta:meta])*
                $field:ident : $ty:ty [$versions:expr] $(null [$null:expr])? $(tag $tag:literal)? $(= $default:expr)? ;
            )*
        }
    )*) => {$(
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub struct $name $(<$lt>)? {
            $( $(#[$field_meta])* pub $field: $ty, )*
        }

        impl $(<$lt>)? Default for $name $(<$lt>)? {
            fn default() -> Self {
                $name { $( $field: message!(@default $($default)?), )* }
            }
        }

        impl<'a> $crate::wire::message::Field<'a> for $name $(<$lt>)? {
            fn read(
                reader: &mut $crate::wire::reader::Reader<'a>,
                _nullable: bool,
            ) -> Result<Self, $crate::wire::reader::DecodeError> {
                #[allow(unused_mut)]
                let mut value = Self::default();
                $( message!(@plain value, reader, $field, [$versions], [$($null)?], [$($tag)?]); )*
                if reader.shape().flexible {
                    reader.tagged(|_reader, _tag| {
                        $( message!(@tagged value, _reader, _tag, $field, [$versions], [$($null)?], [$($tag)?]); )*
                        Ok(false)
                    })?;
                }
                Ok(value)
            }

            fn size_min(shape: $crate::wire::message::Shape) -> usize {
                #[allow(unused_mut)]
                let mut size = usize::from(shape.flexible);
                $( message!(@size size, shape, $ty, [$versions], [$($tag)?]); )*
                size
            }
        }
    )*};

    (@default) => { Default::default() };
    (@default $default:expr) => { $default };

    (@null $reader:ident, []) => { false };
    (@null $reader:ident, [$null:expr]) => { ($null).contains(&$reader.version()) };

    (@plain $value:ident, $reader:ident, $field:ident, [$versions:expr], [$($null:expr)?], []) => {
        if ($versions).contains(&$reader.version()) {
            let nullable = message!(@null $reader, [$($null)?]);
            $value.$field = $crate::wire::message::Field::read($reader, nullable)?;
        }
    };
    (@plain $value:ident, $reader:ident, $field:ident, [$versions:expr], [$($null:expr)?], [$tag:literal]) => {};

    (@tagged $value:ident, $reader:ident, $found:ident, $field:ident, [$versions:expr], [$($null:expr)?], []) => {};
    (@tagged $value:ident, $reader:ident, $found:ident, $field:ident, [$versions:expr], [$($null:expr)?], [$tag:literal]) => {
        if $found == $tag && ($versions).contains(&$reader.version()) {
            let nullable = message!(@null $reader, [$($null)?]);
            $value.$field = $crate::wire::message::Field::read($reader, nullable)?;
            return Ok(true);
        }
    };

    (@size $size:ident, $shape:ident, $ty:ty, [$versions:expr], []) => {
        if ($versions).contains(&$shape.version) {
            $size += <$ty as $crate::wire::message::Field>::size_min($shape);
        }
    };
    (@size $size:ident, $shape:ident, $ty:ty, [$versions:expr], [$tag:literal]) => {};
}
