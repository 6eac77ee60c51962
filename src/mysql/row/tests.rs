use proptest::prelude::*;

use super::*;

fn column(kind: u8, is_unsigned: bool, decimals: u8) -> ColumnDefinition {
    ColumnDefinition { name: "c".to_owned(), kind, is_unsigned, decimals }
}

/// Encodes a row of one column.
fn line(column: ColumnDefinition, value: &[u8]) -> String {
    let encoder = Encoder::new(&[column]).expect("a known type");
    let mut packet = vec![0, 0];
    packet.extend_from_slice(value);
    let mut line = Vec::new();
    encoder.encode(&packet, &mut line).expect("a row");
    String::from_utf8(line).expect("text")
}

fn with_length(bytes: &[u8]) -> Vec<u8> {
    let mut value = vec![bytes.len().to_le_bytes()[0]];
    value.extend_from_slice(bytes);
    value
}

#[test]
fn integers_keep_their_sign_and_width() {
    assert_eq!(line(column(1, false, 0), &[0xFF]), "-1\n");
    assert_eq!(line(column(1, true, 0), &[0xFF]), "255\n");
    assert_eq!(line(column(9, false, 0), &(-8_388_608_i32).to_le_bytes()), "-8388608\n");
    assert_eq!(line(column(8, true, 0), &u64::MAX.to_le_bytes()), "18446744073709551615\n");
    assert_eq!(line(column(8, false, 0), &i64::MIN.to_le_bytes()), "-9223372036854775808\n");
}

#[test]
fn a_float_keeps_what_the_text_protocol_cuts_off() {
    assert_eq!(line(column(4, false, 31), &16_777_217.0_f32.to_le_bytes()), "16777216\n");
    assert_eq!(line(column(4, false, 31), &0.123_456_79_f32.to_le_bytes()), "0.12345679\n");
    assert_eq!(line(column(4, false, 31), &f32::MAX.to_le_bytes()), "3.4028234663852886e+38\n");
    assert_eq!(line(column(5, false, 31), &f64::MIN_POSITIVE.to_le_bytes()), "2.2250738585072014e-308\n");
}

#[test]
fn dates_may_be_zero_and_times_longer_than_a_day() {
    assert_eq!(line(column(0x0A, false, 0), &[0]), "0000-00-00\n");
    assert_eq!(line(column(0x0C, false, 3), &[0]), "0000-00-00 00:00:00.000\n");
    assert_eq!(line(column(0x0C, false, 0), &with_length(&[0xE8, 0x07, 2, 0])), "2024-02-00 00:00:00\n");
    let micros = [&[0xE8, 0x07, 2, 29, 23, 59, 58][..], &7_u32.to_le_bytes()].concat();
    assert_eq!(line(column(0x07, false, 6), &with_length(&micros)), "2024-02-29 23:59:58.000007\n");
    let time = [&[1][..], &34_u32.to_le_bytes(), &[22, 59, 59], &120_000_u32.to_le_bytes()].concat();
    assert_eq!(line(column(0x0B, false, 2), &with_length(&time)), "-838:59:59.12\n");
    assert_eq!(line(column(0x0B, false, 0), &[0]), "00:00:00\n");
    assert_eq!(line(column(0x0D, true, 0), &0_u16.to_le_bytes()), "0000\n");
}

#[test]
fn bytes_are_escaped_so_that_a_line_stays_a_line() {
    assert_eq!(line(column(0xFC, false, 0), &with_length(b"a\tb\nc\\d\0e\rf")), "a\\tb\\nc\\\\d\\0e\rf\n");
    assert_eq!(line(column(0xFD, false, 0), &with_length(b"\\N")), "\\\\N\n");
    assert_eq!(line(column(0xFD, false, 0), &[0]), "\n");
}

#[test]
fn nulls_are_told_by_their_bits() {
    let columns = vec![column(1, false, 0); 15];
    let encoder = Encoder::new(&columns).expect("known types");
    // Columns 0 and 13 (bits 2 and 15) are NULL, and the bits take three bytes.
    let mut packet = vec![0, 0b0000_0100, 0b1000_0000, 0];
    packet.extend_from_slice(&[7; 13]);
    let mut text = Vec::new();
    encoder.encode(&packet, &mut text).expect("a row");
    assert_eq!(text, b"\\N\t7\t7\t7\t7\t7\t7\t7\t7\t7\t7\t7\t7\t\\N\t7\n");
}

#[test]
fn a_packet_that_is_no_such_row_is_refused() {
    let encoder = Encoder::new(&[column(3, false, 0)]).expect("a known type");
    for packet in [&[0, 0, 1, 2][..], &[0, 0, 1, 2, 3, 4, 5], &[]] {
        assert!(encoder.encode(packet, &mut Vec::new()).is_err(), "{packet:?}");
    }
    assert!(Encoder::new(&[column(0x20, false, 0)]).is_err());
}

#[test]
fn a_key_becomes_literals_that_compare_as_the_column() {
    let columns = [column(8, false, 0), column(0xFD, false, 0), column(4, false, 31), column(0x10, true, 0)];
    let encoder = Encoder::new(&columns).expect("known types");
    let mut packet = vec![0, 0];
    packet.extend_from_slice(&7_i64.to_le_bytes());
    packet.extend_from_slice(&with_length(b"\xC7\xD1'"));
    packet.extend_from_slice(&0.1_f32.to_le_bytes());
    packet.extend_from_slice(&with_length(&[1, 2]));
    let kinds = [KeyKind::Number, KeyKind::Text { charset: "euckr".to_owned() }, KeyKind::Double, KeyKind::Bit];
    let key: Vec<_> = kinds.into_iter().enumerate().map(|(index, kind)| KeyColumn { index, kind }).collect();
    let literals = encoder.key(&packet, &key).expect("a key");
    assert_eq!(literals, ["7", "_euckr X'C7D127'", "1.0000000149011612e-1", "258"]);
}

proptest! {
    #[test]
    fn a_float_reads_back_to_its_bits_by_way_of_a_double(bits: u32) {
        let value = f32::from_bits(bits);
        prop_assume!(value.is_finite());
        let text = line(column(4, false, 31), &value.to_le_bytes());
        let double: f64 = text.trim_end().parse().expect("a number");
        #[expect(clippy::cast_possible_truncation, reason = "servers narrow the double that they read")]
        let narrowed = double as f32;
        prop_assert_eq!(narrowed.to_bits(), bits);
    }

    #[test]
    fn a_double_reads_back_to_its_bits(bits: u64) {
        let value = f64::from_bits(bits);
        prop_assume!(value.is_finite());
        let text = line(column(5, false, 31), &value.to_le_bytes());
        prop_assert_eq!(text.trim_end().parse::<f64>().expect("a number").to_bits(), bits);
    }

    #[test]
    fn any_bytes_are_one_field_of_one_line(bytes: Vec<u8>) {
        let mut text = Vec::new();
        push_escaped(&mut text, &bytes);
        prop_assert!(!text.contains(&b'\n') && !text.contains(&b'\t') && !text.contains(&0));
        let mut back = Vec::new();
        let mut rest = text.iter();
        while let Some(byte) = rest.next() {
            back.push(match byte {
                b'\\' => match rest.next() {
                    Some(b't') => b'\t',
                    Some(b'n') => b'\n',
                    Some(b'0') => 0,
                    Some(b'\\') => b'\\',
                    other => panic!("unknown escape {other:?}"),
                },
                byte => *byte,
            });
        }
        prop_assert_eq!(back, bytes);
    }
}
