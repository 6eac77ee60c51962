//! Dates and times of the binary protocol as text, zero dates and times of more than a day included.

use crate::mysql::wire::WireError;
use crate::mysql::wire::cursor::Cursor;

const ODD: WireError = WireError::Protocol { what: "a date or time is of an unknown length" };

pub(crate) fn push_year(line: &mut Vec<u8>, year: u16) {
    // `0` would be read as 2000: the year 0000 needs its four digits.
    push_digits(line, u32::from(year), 4);
}

pub(crate) fn push_date(line: &mut Vec<u8>, bytes: &[u8]) -> Result<(), WireError> {
    if !matches!(bytes.len(), 0 | 4 | 7 | 11) {
        return Err(ODD);
    }
    let [low, high, month, day] = bytes.first_chunk().copied().unwrap_or_default();
    push_digits(line, u32::from(u16::from_le_bytes([low, high])), 4);
    line.push(b'-');
    push_digits(line, u32::from(month), 2);
    line.push(b'-');
    push_digits(line, u32::from(day), 2);
    Ok(())
}

pub(crate) fn push_datetime(line: &mut Vec<u8>, bytes: &[u8], digits: u8) -> Result<(), WireError> {
    push_date(line, bytes)?;
    let mut time = Cursor::new(bytes.get(4..).unwrap_or_default());
    let clock: [u8; 3] = time.array().unwrap_or_default();
    let micros = u32::from_le_bytes(time.array().unwrap_or_default());
    line.push(b' ');
    push_clock(line, u32::from(clock[0]), clock[1], clock[2]);
    push_fraction(line, micros, digits);
    Ok(())
}

pub(crate) fn push_time(line: &mut Vec<u8>, bytes: &[u8], digits: u8) -> Result<(), WireError> {
    if !matches!(bytes.len(), 0 | 8 | 12) {
        return Err(ODD);
    }
    let mut cursor = Cursor::new(bytes);
    let is_negative = cursor.u8().unwrap_or_default() != 0;
    let days = cursor.u32().unwrap_or_default();
    let clock: [u8; 3] = cursor.array().unwrap_or_default();
    let micros = cursor.u32().unwrap_or_default();
    if is_negative {
        line.push(b'-');
    }
    let hours = days.saturating_mul(24).saturating_add(u32::from(clock[0]));
    push_clock(line, hours, clock[1], clock[2]);
    push_fraction(line, micros, digits);
    Ok(())
}

fn push_clock(line: &mut Vec<u8>, hours: u32, minutes: u8, seconds: u8) {
    push_digits(line, hours, 2);
    line.push(b':');
    push_digits(line, u32::from(minutes), 2);
    line.push(b':');
    push_digits(line, u32::from(seconds), 2);
}

fn push_fraction(line: &mut Vec<u8>, micros: u32, digits: u8) {
    if digits > 0 {
        line.push(b'.');
        let width = usize::from(digits.min(6));
        push_digits(line, micros / 10_u32.pow(6 - u32::from(digits.min(6))), width);
    }
}

/// Appends a number with leading zeros up to the width.
fn push_digits(line: &mut Vec<u8>, value: u32, width: usize) {
    let mut buffer = itoa::Buffer::new();
    let text = buffer.format(value).as_bytes();
    for _ in text.len()..width {
        line.push(b'0');
    }
    line.extend_from_slice(text);
}
