//! Numbers as text that reads back to the same bits.

use std::io::Write;

#[inline]
pub(crate) fn push_int(line: &mut Vec<u8>, value: impl itoa::Integer) {
    line.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends the shortest text that reads back to the same number, also by way of a double, as servers read it.
pub(crate) fn push_f32(line: &mut Vec<u8>, value: f32) {
    let magnitude = value.abs();
    if magnitude >= f32::MAX {
        // Its shortest text, 3.4028235e38, is a double beyond it, and servers then warn that they cut the value.
        return push_f64(line, f64::from(value));
    }
    // Writing into a Vec does not fail.
    let _infallible = if magnitude == 0.0 || (1e-5..1e16).contains(&magnitude) {
        write!(line, "{value}")
    } else {
        write!(line, "{value:e}")
    };
}

/// Appends the shortest text that reads back to the same number.
pub(crate) fn push_f64(line: &mut Vec<u8>, value: f64) {
    let magnitude = value.abs();
    let _infallible = if magnitude == 0.0 || (1e-5..1e16).contains(&magnitude) {
        write!(line, "{value}")
    } else {
        write!(line, "{value:e}")
    };
}
