use super::*;

mod groups;

/// Makes files of events, as a server would.
#[derive(Debug, Clone)]
pub(super) struct File {
    pub(super) bytes: Vec<u8>,
    checksum: Checksum,
    pub(super) offsets: Vec<usize>,
}

impl File {
    pub(super) fn new(checksum: Checksum) -> Self {
        let mut file = Self { bytes: MAGIC.to_vec(), checksum: Checksum::Crc32, offsets: Vec::new() };
        let mut body = vec![4, 0];
        body.extend_from_slice(b"9.7.0");
        body.resize(2 + 50 + 4, 0);
        body.push(19);
        body.extend_from_slice(&[0; 42]);
        body.push(u8::from(checksum == Checksum::Crc32));
        file.push(Kind::FORMAT_DESCRIPTION, 0, &body);
        file.checksum = checksum;
        file
    }

    pub(super) fn push(&mut self, kind: Kind, timestamp: u32, body: &[u8]) {
        let start = self.bytes.len();
        self.offsets.push(start);
        let length = Header::BYTES + body.len() + self.checksum.bytes();
        self.bytes.extend_from_slice(&timestamp.to_le_bytes());
        self.bytes.push(kind.0);
        self.bytes.extend_from_slice(&1_u32.to_le_bytes());
        self.bytes.extend_from_slice(&(length as u32).to_le_bytes());
        self.bytes.extend_from_slice(&((start + length) as u32).to_le_bytes());
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(body);
        if self.checksum == Checksum::Crc32 {
            let checksum = crc32fast::hash(&self.bytes[start..]);
            self.bytes.extend_from_slice(&checksum.to_le_bytes());
        }
    }
}

fn sample(checksum: Checksum) -> File {
    let mut file = File::new(checksum);
    file.push(Kind::XID, 7, &[1; 8]);
    file.push(Kind::WRITE_ROWS, 8, &vec![2; 200_000]);
    file.push(Kind::STOP, 9, &[]);
    file
}

/// Kinds and offsets.
type Events = Vec<(Kind, u64)>;

/// Reads a file to its end: kinds and offsets, and where it is torn.
fn walk(bytes: &[u8]) -> Result<(Events, Option<Torn>), BinlogError> {
    let (mut reader, mut events) = (SegmentReader::new(bytes)?, Vec::new());
    while let Some(event) = reader.next()? {
        events.push((event.header.kind, event.offset));
    }
    Ok((events, reader.torn()))
}

#[test]
fn events_are_read_one_after_the_other() {
    for checksum in [Checksum::None, Checksum::Crc32] {
        let file = sample(checksum);
        let (events, torn) = walk(&file.bytes).unwrap();
        let kinds = [Kind::FORMAT_DESCRIPTION, Kind::XID, Kind::WRITE_ROWS, Kind::STOP];
        let offsets = file.offsets.iter().map(|offset| *offset as u64);
        assert_eq!(events, kinds.into_iter().zip(offsets).collect::<Vec<_>>());
        assert_eq!(torn, None);
    }
}

#[test]
fn of_a_large_event_only_the_head_is_held_unless_all_is_wanted() {
    let file = sample(Checksum::Crc32);
    let mut reader = SegmentReader::new(&file.bytes[..]).unwrap();
    for _ in 0..2 {
        reader.next().unwrap().unwrap();
    }
    let event = reader.next().unwrap().unwrap();
    assert!(!event.is_whole() && event.raw().len() < 70_000, "{}", event.raw().len());
    assert!(matches!(reader.read_whole(100_000), Err(BinlogError::TooLarge { .. })));
    let event = reader.read_whole(EVENT_BYTES_MAX).unwrap().unwrap();
    assert_eq!(event.body(), vec![2; 200_000]);
    let mut copy = Vec::new();
    assert!(reader.copy_to(&mut copy).unwrap());
    assert_eq!(copy, &file.bytes[file.offsets[2]..file.offsets[3]]);
    assert_eq!(reader.next().unwrap().unwrap().header.kind, Kind::STOP);
}

#[test]
fn an_event_is_copied_byte_for_byte_from_its_head_on() {
    let file = sample(Checksum::Crc32);
    let (mut reader, mut copy) = (SegmentReader::new(&file.bytes[..]).unwrap(), MAGIC.to_vec());
    while reader.next().unwrap().is_some() {
        assert!(reader.copy_to(&mut copy).unwrap());
    }
    assert_eq!(copy, file.bytes);
}

#[test]
fn a_file_cut_anywhere_is_torn_and_no_error() {
    let file = sample(Checksum::Crc32);
    let mut ends: Vec<_> = file.offsets.clone();
    ends.push(file.bytes.len());
    let near = ends.iter().flat_map(|end| end.saturating_sub(30)..(end + 30).min(file.bytes.len()));
    for cut in near.chain([150_000]) {
        let (events, torn) = walk(&file.bytes[..cut]).unwrap();
        let whole = ends.iter().filter(|end| **end <= cut).count().saturating_sub(1);
        assert_eq!(
            events.iter().filter(|(_, offset)| torn.is_none_or(|torn| *offset < torn.offset)).count(),
            whole,
            "{cut}"
        );
        let is_between = cut == 4 || ends[1..].contains(&cut);
        assert_eq!(torn.is_none(), is_between, "{cut}: {torn:?}");
        if let Some(torn) = torn {
            assert_eq!(torn.offset + torn.bytes, cut as u64);
        }
    }
}

#[test]
fn a_bit_flipped_anywhere_is_found() {
    let file = sample(Checksum::Crc32);
    let large = file.offsets[2] + 40..file.offsets[3] - 10;
    // The mark that a file is in use is set and cleared without a new checksum.
    let in_use = (file.offsets[0] + 17) * 8;
    let bits = (0..file.bytes.len() * 8).filter(|bit| !large.contains(&(bit / 8)) && *bit != in_use);
    for bit in bits.chain([large.start * 8 + 70_000 * 8]) {
        let mut bytes = file.bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(walk(&bytes).map_or(true, |(_, torn)| torn.is_some()), "bit {bit} was not missed");
    }
}

#[test]
fn an_encrypted_file_is_told_from_a_damaged_one() {
    assert!(matches!(SegmentReader::new(&b"\xFDbin\x01"[..]), Err(BinlogError::Encrypted { offset: 0 })));
    assert!(matches!(SegmentReader::new(&b"#!/bin/sh"[..]), Err(BinlogError::NoBinlog)));
    let mut file = File::new(Checksum::Crc32);
    file.push(Kind::START_ENCRYPTION, 0, &[1; 17]);
    let offset = file.bytes.len() as u64;
    file.bytes.extend_from_slice(&[0x5A; 100]);
    assert!(matches!(walk(&file.bytes), Err(BinlogError::Encrypted { offset: at }) if at == offset));
}

#[test]
fn previous_gtids_are_read_with_and_without_tags() {
    let mut plain = 1_u64.to_le_bytes().to_vec();
    plain.extend_from_slice(&[0x11; 16]);
    plain.extend_from_slice(&2_u64.to_le_bytes());
    plain.extend([1_u64, 78, 79, 80].iter().flat_map(|number| number.to_le_bytes()));
    let uuid = "11111111-1111-1111-1111-111111111111";
    assert_eq!(previous_gtids(&plain).unwrap().to_string(), format!("{uuid}:1-77:79"));
    let mut tagged = vec![1, 1, 0, 0, 0, 0, 0, 1];
    tagged.extend_from_slice(&[0x11; 16]);
    tagged.extend_from_slice(b"\x0Adrill");
    tagged.extend([1_u64, 1, 6].iter().flat_map(|number| number.to_le_bytes()));
    assert_eq!(previous_gtids(&tagged).unwrap().to_string(), format!("{uuid}:drill:1-5"));
    assert!(previous_gtids(&plain[..plain.len() - 1]).is_err());
    assert!(previous_gtids(&[plain, vec![0]].concat()).is_err());
}

#[test]
fn a_list_of_mariadb_is_read_in_its_order() {
    let mut body = (2_u32 | 1 << 28).to_le_bytes().to_vec();
    for (server, sequence) in [(2_u32, 9_u64), (1, 10)] {
        body.extend_from_slice(&0_u32.to_le_bytes());
        body.extend_from_slice(&server.to_le_bytes());
        body.extend_from_slice(&sequence.to_le_bytes());
    }
    assert_eq!(mariadb_gtid_list(&body).unwrap().to_string(), "0-2-9,0-1-10");
    assert!(mariadb_gtid_list(&body[..20]).is_err());
}

#[test]
fn a_rotation_never_leads_out_of_the_directory() {
    let rotate = |file: &str| Rotate::parse(&[&4_u64.to_le_bytes()[..], file.as_bytes()].concat());
    assert_eq!(rotate("binlog.000002"), Ok(Rotate { file: "binlog.000002".to_owned(), position: 4 }));
    for file in ["", "..", "../x", "a/b", "/etc/passwd", ".hidden"] {
        assert!(rotate(file).is_err(), "{file}");
    }
}

#[test]
fn numbers_of_the_serialization_library_are_read_in_every_length() {
    use crate::mysql::wire::cursor::Cursor;
    for (bytes, number) in [
        (vec![0], 0),
        (vec![0xFE], 0x7F),
        (vec![0x01, 0x02], 0x80),
        (vec![0x7F, 1, 2, 3, 4, 5, 6, 7], 0x0007_0605_0403_0201),
        (vec![0xFF, 1, 2, 3, 4, 5, 6, 7, 8], 0x0807_0605_0403_0201),
    ] {
        let mut cursor = Cursor::new(&bytes);
        assert_eq!(start::varlen(&mut cursor).unwrap(), number);
        assert!(cursor.rest().is_empty());
    }
}
