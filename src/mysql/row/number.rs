//! Numbers as text that reads back to the same bits.

#[inline]
pub(crate) fn push_int(line: &mut Vec<u8>, value: impl itoa::Integer) {
    line.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends the shortest text that reads back to the same number, also by way of a double, as servers read it.
pub(crate) fn push_f32(line: &mut Vec<u8>, value: f32) {
    if value.abs() >= f32::MAX {
        // Its shortest text, 3.4028235e38, is a double beyond it, and servers then warn that they cut the value.
        push_shortest(line, f64::from(value));
    } else {
        push_shortest(line, value);
    }
}

/// Appends the shortest text that reads back to the same number.
pub(crate) fn push_f64(line: &mut Vec<u8>, value: f64) {
    push_shortest(line, value);
}

fn push_shortest(line: &mut Vec<u8>, value: impl zmij::Float) {
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format(value);
    line.extend_from_slice(text.strip_suffix(".0").unwrap_or(text).as_bytes());
}
