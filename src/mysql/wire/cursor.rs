//! Reads fields from a packet; one that is too short is an error, never a panic.

use crate::mysql::wire::error::WireError;

/// Made only where it is returned: `ok_or` would make and drop one for each field, which was a fortieth of a dump's cycles.
const SHORT: WireError = WireError::Protocol { what: "a packet is too short" };

#[derive(Debug, Clone, Copy)]
pub struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let Some((head, tail)) = self.rest.split_at_checked(count) else { return Err(SHORT) };
        self.rest = tail;
        Ok(head)
    }

    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let Some((head, tail)) = self.rest.split_first_chunk::<N>() else { return Err(SHORT) };
        self.rest = tail;
        Ok(*head)
    }

    #[inline]
    pub fn u8(&mut self) -> Result<u8, WireError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    #[inline]
    pub fn u16(&mut self) -> Result<u16, WireError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    #[inline]
    pub fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    #[inline]
    pub fn u64(&mut self) -> Result<u64, WireError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Reads an integer that tells its own length.
    #[inline]
    pub fn length(&mut self) -> Result<usize, WireError> {
        let length = match self.u8()? {
            small @ 0..=0xFA => u64::from(small),
            0xFC => u64::from(self.u16()?),
            0xFD => {
                let [a, b, c] = self.array()?;
                u64::from(u32::from_le_bytes([a, b, c, 0]))
            }
            0xFE => self.u64()?,
            _ => {
                return Err(WireError::Protocol { what: "a length is no length" });
            }
        };
        usize::try_from(length).map_err(|_| SHORT)
    }

    /// Reads bytes after their length.
    #[inline]
    pub fn bytes(&mut self) -> Result<&'a [u8], WireError> {
        let length = self.length()?;
        self.take(length)
    }

    /// Reads bytes up to a NUL, or all that is left.
    pub fn until_nul(&mut self) -> &'a [u8] {
        let end = self.rest.iter().position(|byte| *byte == 0);
        let text = &self.rest[..end.unwrap_or(self.rest.len())];
        self.rest = end.map_or(&[], |end| &self.rest[end + 1..]);
        text
    }
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_every_width_are_read() {
        let mut bytes = vec![0xFA, 0xFC, 1, 2, 0xFD, 1, 2, 3, 0xFE];
        bytes.extend(5_u64.to_le_bytes());
        let mut cursor = Cursor::new(&bytes);
        let lengths: Vec<_> = std::iter::repeat_with(|| cursor.length().unwrap_or(0)).take(4).collect();
        assert_eq!(lengths, [0xFA, 0x0201, 0x0003_0201, 5]);
    }

    #[test]
    fn a_cut_packet_is_an_error() {
        assert!(Cursor::new(&[5, b'a']).bytes().is_err());
        assert!(Cursor::new(&[0xFE, 1]).length().is_err());
        assert!(Cursor::new(&[0xFF]).length().is_err());
        assert!(Cursor::new(&[1]).u32().is_err());
    }
}
