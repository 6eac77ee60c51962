//! Names as Go's `strconv.Quote` writes them, without the quotes around: any bytes become valid UTF-8 and come back exactly.

use std::fmt::Write;

/// Quotes raw bytes.
pub(super) fn quote(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for part in bytes.utf8_chunks() {
        part.valid().chars().for_each(|c| quote_char(c, &mut text));
        for byte in part.invalid() {
            escape(&mut text, format_args!("\\x{byte:02x}"));
        }
    }
    text
}

fn quote_char(c: char, text: &mut String) {
    match c {
        '"' | '\\' => text.extend(['\\', c]),
        '\x07' => text.push_str("\\a"),
        '\x08' => text.push_str("\\b"),
        '\x0c' => text.push_str("\\f"),
        '\n' => text.push_str("\\n"),
        '\r' => text.push_str("\\r"),
        '\t' => text.push_str("\\t"),
        '\x0b' => text.push_str("\\v"),
        ' '..='~' => text.push(c),
        '\0'..'\x20' | '\x7f' => escape(text, format_args!("\\x{:02x}", u32::from(c))),
        _ if is_printable(c) => text.push(c),
        '\u{80}'..='\u{ffff}' => escape(text, format_args!("\\u{:04x}", u32::from(c))),
        _ => escape(text, format_args!("\\U{:08x}", u32::from(c))),
    }
}

fn escape(text: &mut String, escape: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = text.write_fmt(escape);
}

/// Tells whether Go prints the character: letters, marks, numbers, punctuation and symbols of Unicode. Where the two languages
/// know other versions of Unicode the name is spelled another way and reads the same.
fn is_printable(c: char) -> bool {
    let is_hangul_or_han = matches!(c, '\u{ac00}'..='\u{d7a3}' | '\u{4e00}'..='\u{9fff}');
    // Debug output escapes what is not printable; after a first letter it leaves combining marks as they are.
    is_hangul_or_han || {
        let mut buffer = *b"a\0\0\0\0";
        let length = 1 + c.encode_utf8(&mut buffer[1..]).len();
        let text = std::str::from_utf8(&buffer[..length]).unwrap_or_default();
        text.escape_debug().nth(1) == Some(c)
    }
}

/// Reads a quoted name back; `None` where it is none.
pub(super) fn unquote(text: &str) -> Option<Vec<u8>> {
    if !text.contains(['\\', '"', '\n']) {
        return Some(text.as_bytes().to_vec());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '"' | '\n' => return None,
            '\\' => rest = unescape(rest, &mut bytes)?,
            _ => push_char(c, &mut bytes),
        }
    }
    Some(bytes)
}

/// Reads what follows a backslash; returns the rest.
fn unescape<'a>(text: &'a str, bytes: &mut Vec<u8>) -> Option<&'a str> {
    let kind = text.chars().next()?;
    let rest = &text[kind.len_utf8()..];
    let plain = match kind {
        'a' => 0x07,
        'b' => 0x08,
        'f' => 0x0c,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 0x0b,
        '\\' => b'\\',
        '"' => b'"',
        'x' => {
            let (value, rest) = number(rest, 2, 16)?;
            bytes.push(u8::try_from(value).ok()?);
            return Some(rest);
        }
        '0'..='7' => {
            let (value, rest) = number(text, 3, 8)?;
            bytes.push(u8::try_from(value).ok()?);
            return Some(rest);
        }
        'u' | 'U' => {
            let (value, rest) = number(rest, if kind == 'u' { 4 } else { 8 }, 16)?;
            push_char(char::from_u32(value)?, bytes);
            return Some(rest);
        }
        _ => return None,
    };
    bytes.push(plain);
    Some(rest)
}

fn number(text: &str, digits: usize, radix: u32) -> Option<(u32, &str)> {
    let (head, rest) = text.split_at_checked(digits)?;
    let are_digits = head.chars().all(|c| c.is_digit(radix));
    let value = u32::from_str_radix(head, radix).ok().filter(|_| are_digits)?;
    Some((value, rest))
}

fn push_char(c: char, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_spelled_as_go_spells_them() {
        let spelled: [(&[u8], &str); 12] = [
            (b"plain name.jpg", "plain name.jpg"),
            ("상품/이미지".as_bytes(), "상품/이미지"),
            (b"say \"hi\" \\ there", r#"say \"hi\" \\ there"#),
            (b"\x07\x08\x0c\n\r\t\x0b\0\x1b\x7f", r"\a\b\f\n\r\t\v\x00\x1b\x7f"),
            (b"\xff\xfe latin \xe9", r"\xff\xfe latin \xe9"),
            (b"\xed\xa0\x80", r"\xed\xa0\x80"),
            ("\u{a0}\u{ad}".as_bytes(), r"\u00a0\u00ad"),
            ("\u{200b}\u{2028}\u{feff}".as_bytes(), r"\u200b\u2028\ufeff"),
            ("e\u{301}".as_bytes(), "e\u{301}"),
            ("\u{301}".as_bytes(), "\u{301}"),
            ("🛍\u{e0001}".as_bytes(), "🛍\\U000e0001"),
            ("\u{fffd}\u{e000}".as_bytes(), "\u{fffd}\\ue000"),
        ];
        for (bytes, text) in spelled {
            assert_eq!(quote(bytes), text);
            assert_eq!(unquote(text).as_deref(), Some(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_not_quoted_well_is_refused() {
        for text in [
            "\"",
            "a\nb\\t",
            "\\",
            "\\x",
            "\\x1",
            "\\xg0",
            "\\x+1",
            "\\ud800",
            "\\U00110000",
            "\\q",
            "\\'",
            "\\400",
            "\\x한",
        ] {
            assert_eq!(unquote(text), None, "{text:?}");
        }
        assert_eq!(unquote("\\101\\x41\\u0041"), Some(b"AAA".to_vec()));
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(unquote(&quote(&bytes)), Some(bytes));
        }

        #[test]
        fn any_text_comes_back(text: String) {
            prop_assert_eq!(unquote(&quote(text.as_bytes())), Some(text.into_bytes()));
        }

        #[test]
        fn hostile_text_does_no_harm(text in "[\\\\\"xuU0-9a-f한 \n]{0,40}") {
            let _ = unquote(&text);
        }
    }
}
