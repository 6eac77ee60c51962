//! A server's RSA key, looked at before it is used: the library that seals a password with it panics at whatever is none.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::mysql::wire::cursor::Cursor;

const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const END: &str = "-----END PUBLIC KEY-----";

/// Kinds of elements in DER (X.690).
mod kind {
    pub(super) const INTEGER: u8 = 0x02;
    pub(super) const BIT_STRING: u8 = 0x03;
    pub(super) const SEQUENCE: u8 = 0x30;
}

/// What OAEP with SHA-1 adds to a message (RFC 8017, 7.1.1).
const PADDING_BYTES: usize = 2 * 20 + 2;

/// OpenSSL's own limit: a longer modulus only costs time.
const MODULUS_BYTES_MAX: usize = 16384 / 8;

/// OpenSSL's limit where the modulus is long; servers' keys have three bytes (65537).
const EXPONENT_BYTES_MAX: usize = 8;

/// Returns a public key (RFC 5280's `SubjectPublicKeyInfo` as PEM) written anew, where it is one of RSA that so many bytes can be
/// sealed with.
pub(super) fn sealing(pem: &[u8], bytes: usize) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(pem).ok()?;
    let (_, rest) = text.split_once(BEGIN)?;
    let (body, _) = rest.split_once(END)?;
    let body: String = body.split_ascii_whitespace().collect();
    let der = STANDARD.decode(body).ok()?;
    let modulus = modulus(&der)?;
    // Its length in the library's count, which takes the highest bit for a whole byte.
    let fits = (bytes + PADDING_BYTES + 1..=MODULUS_BYTES_MAX).contains(&modulus.len());
    fits.then(|| format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode(der)).into_bytes())
}

/// Returns the modulus without zeros before it.
fn modulus(der: &[u8]) -> Option<&[u8]> {
    let mut info = Cursor::new(element(&mut Cursor::new(der), kind::SEQUENCE)?);
    let _algorithm = element(&mut info, kind::SEQUENCE)?;
    // Its first byte says how many bits of the last one are none.
    let (unused, key) = element(&mut info, kind::BIT_STRING)?.split_first()?;
    let mut numbers = Cursor::new(element(&mut Cursor::new(key), kind::SEQUENCE)?);
    let modulus = element(&mut numbers, kind::INTEGER)?;
    let exponent = element(&mut numbers, kind::INTEGER)?;
    let is_exponent = (1..=EXPONENT_BYTES_MAX).contains(&significant(exponent).len());
    (*unused == 0 && is_exponent).then_some(significant(modulus))
}

/// Returns a number without the zeros before it.
fn significant(number: &[u8]) -> &[u8] {
    &number[number.iter().take_while(|byte| **byte == 0).count()..]
}

/// Reads an element of a kind.
fn element<'a>(cursor: &mut Cursor<'a>, kind: u8) -> Option<&'a [u8]> {
    if cursor.u8().ok()? != kind {
        return None;
    }
    let length = match cursor.u8().ok()? {
        short @ 0..=0x7F => short.into(),
        0x81 => cursor.u8().ok()?.into(),
        0x82 => u16::from_be_bytes(cursor.array().ok()?).into(),
        _ => return None,
    };
    cursor.take(length).ok()
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test may panic")]
mod tests {
    use super::*;

    /// A key as a server sends it; its numbers are none of RSA's, which nobody looks at here.
    fn pem(modulus_bytes: u16) -> String {
        pem_with(modulus_bytes, &[1, 0, 1])
    }

    fn pem_with(modulus_bytes: u16, exponent: &[u8]) -> String {
        let long = |kind: u8, body: &[u8]| {
            let length = u16::try_from(body.len()).expect("a length").to_be_bytes();
            [&[kind, 0x82], &length[..], body].concat()
        };
        let mut modulus = vec![0xC3; usize::from(modulus_bytes)];
        modulus.insert(0, 0);
        let numbers = [long(kind::INTEGER, &modulus), long(kind::INTEGER, exponent)].concat();
        let key = [&[0][..], &long(kind::SEQUENCE, &numbers)].concat();
        let info = [&[kind::SEQUENCE, 2, 5, 0][..], &long(kind::BIT_STRING, &key)].concat();
        format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode(long(kind::SEQUENCE, &info)))
    }

    #[test]
    fn a_key_is_taken_where_the_password_fits() {
        let key = sealing(pem(256).as_bytes(), 20).expect("a key");
        assert_eq!(mysql_common::crypto::encrypt(&[7; 20], &key).len(), 256);
        let longest = 256 - PADDING_BYTES - 1;
        let key = sealing(pem(256).as_bytes(), longest).expect("a key");
        assert_eq!(mysql_common::crypto::encrypt(&vec![7; longest], &key).len(), 256);
        assert_eq!(sealing(pem(256).as_bytes(), longest + 1), None);
        assert_eq!(sealing(pem(40).as_bytes(), 1), None);
        assert_eq!(sealing(pem(4096).as_bytes(), 1), None);
        for exponent in [&[0, 0][..], &[1; 9]] {
            assert_eq!(sealing(pem_with(256, exponent).as_bytes(), 1), None, "{exponent:?}");
        }
    }

    #[test]
    fn whatever_is_no_key_is_refused() {
        let whole = pem(256);
        let der = STANDARD.decode(whole.lines().nth(1).expect("a body")).expect("base64");
        for cut in 0..der.len() {
            let text = format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode(&der[..cut]));
            assert_eq!(sealing(text.as_bytes(), 20), None, "{cut}");
        }
        for text in ["", BEGIN, "-----BEGIN PUBLIC KEY----------END PUBLIC KEY-----", &whole[..whole.len() - 30]] {
            assert_eq!(sealing(text.as_bytes(), 20), None, "{text}");
        }
    }
}
