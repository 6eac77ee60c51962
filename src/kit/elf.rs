//! What a Linux program needs of the machine that it is to run on, as its ELF headers say.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The needs of a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binary {
    /// `x86_64`, `aarch64`, or the number that the headers have.
    pub machine: String,
    /// Shared libraries; empty: the program is static and runs on any Linux of its machine.
    pub needs: Vec<String>,
    /// The oldest glibc that has all it calls (`2.34`).
    pub glibc: Option<String>,
}

impl fmt::Display for Binary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Linux on {}", self.machine)?;
        match &self.glibc {
            Some(glibc) => write!(f, ", glibc {glibc} or newer ({})", self.needs.join(", ")),
            None if self.needs.is_empty() => write!(f, ", any (the program is static)"),
            None => write!(f, ", with {}", self.needs.join(", ")),
        }
    }
}

impl Binary {
    /// Reads the headers of a 64-bit little-endian ELF file.
    ///
    /// # Errors
    /// Says what it is instead.
    pub fn of(file: &[u8]) -> Result<Self, String> {
        let elf = Elf::new(file)?;
        let Some(dynamic) = elf.dynamic()? else {
            return Ok(Self { machine: elf.machine(), needs: Vec::new(), glibc: None });
        };
        let needs = dynamic.needs.iter().map(|at| text_at(dynamic.strings, *at)).collect::<Result<_, _>>()?;
        // The names of all versions that are asked for lie among the strings.
        let texts = dynamic.strings.split(|byte| *byte == 0).filter_map(|text| std::str::from_utf8(text).ok());
        let glibc: BTreeSet<Vec<u32>> = texts.filter_map(|text| version(text.strip_prefix("GLIBC_")?)).collect();
        let glibc = glibc.last().map(|parts| parts.iter().map(u32::to_string).collect::<Vec<_>>().join("."));
        Ok(Self { machine: elf.machine(), needs, glibc })
    }
}

/// Reads `2.34`; `None` for `PRIVATE` and other words.
fn version(text: &str) -> Option<Vec<u32>> {
    text.split('.').map(|part| part.parse().ok()).collect()
}

fn text_at(strings: &[u8], at: usize) -> Result<String, String> {
    let rest = strings.get(at..).ok_or("a name lies past its strings")?;
    let end = rest.iter().position(|byte| *byte == 0).ok_or("a name has no end")?;
    Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
}

/// A file and its program headers.
struct Elf<'a> {
    file: &'a [u8],
    segments: Vec<Segment>,
}

struct Segment {
    kind: u32,
    offset: usize,
    address: u64,
    size: usize,
}

struct Dynamic<'a> {
    strings: &'a [u8],
    /// Where among the strings the names of libraries begin.
    needs: Vec<usize>,
}

const SEGMENT_LOADED: u32 = 1;
const SEGMENT_DYNAMIC: u32 = 2;
const TAG_NEEDED: u64 = 1;
const TAG_STRINGS: u64 = 5;
const TAG_STRINGS_SIZE: u64 = 10;

impl<'a> Elf<'a> {
    fn new(file: &'a [u8]) -> Result<Self, String> {
        const CLASS_64_LITTLE_ENDIAN: [u8; 2] = [2, 1];
        const SEGMENTS_MAX: u16 = 1024;
        if !file.starts_with(b"\x7fELF") || file.get(4..6) != Some(&CLASS_64_LITTLE_ENDIAN[..]) {
            return Err("it is no 64-bit Linux program".to_owned());
        }
        let mut elf = Self { file, segments: Vec::new() };
        let (first, size, count) = (elf.number(32, 8)?, elf.number(54, 2)?, elf.number(56, 2)?);
        for rank in 0..count.min(u64::from(SEGMENTS_MAX)) {
            let at = place(first.saturating_add(rank.saturating_mul(size)));
            elf.segments.push(Segment {
                kind: u32::try_from(elf.number(at, 4)?).unwrap_or(0),
                offset: place(elf.number(at + 8, 8)?),
                address: elf.number(at + 16, 8)?,
                size: place(elf.number(at + 32, 8)?),
            });
        }
        Ok(elf)
    }

    fn machine(&self) -> String {
        match self.number(18, 2) {
            Ok(62) => "x86_64".to_owned(),
            Ok(183) => "aarch64".to_owned(),
            other => format!("machine {}", other.unwrap_or(0)),
        }
    }

    /// Reads the section for the dynamic linker; `None` where there is nothing to link.
    fn dynamic(&self) -> Result<Option<Dynamic<'a>>, String> {
        let Some(segment) = self.segments.iter().find(|segment| segment.kind == SEGMENT_DYNAMIC) else {
            return Ok(None);
        };
        let (mut needs, mut strings, mut size) = (Vec::new(), None, 0);
        for entry in self.stretch(segment.offset, segment.size)?.as_chunks::<16>().0 {
            let (tag, value) = entry.split_at(8);
            let value = little_endian(value);
            match little_endian(tag) {
                0 => break,
                TAG_NEEDED => needs.push(place(value)),
                TAG_STRINGS => strings = Some(value),
                TAG_STRINGS_SIZE => size = place(value),
                _ => {}
            }
        }
        // A static program that may lie anywhere in memory has the section, and no libraries in it.
        let Some(address) = strings else { return Ok(None) };
        let strings = self.stretch(self.offset_of(address)?, size)?;
        Ok(Some(Dynamic { strings, needs }))
    }

    /// Returns where in the file lies what will lie at an address.
    fn offset_of(&self, address: u64) -> Result<usize, String> {
        let mut loaded = self.segments.iter().filter(|segment| segment.kind == SEGMENT_LOADED);
        let found = loaded.find_map(|segment| {
            let within = place(address.checked_sub(segment.address)?);
            (within < segment.size).then(|| segment.offset.checked_add(within))?
        });
        found.ok_or_else(|| "its strings lie nowhere".to_owned())
    }

    fn stretch(&self, offset: usize, size: usize) -> Result<&'a [u8], String> {
        let end = offset.checked_add(size);
        end.and_then(|end| self.file.get(offset..end)).ok_or_else(|| "it is cut short".to_owned())
    }

    fn number(&self, offset: usize, size: usize) -> Result<u64, String> {
        self.stretch(offset, size).map(little_endian)
    }
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn place(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_program_tells_what_it_needs() {
        let file = std::env::current_exe().and_then(std::fs::read).unwrap_or_default();
        let binary = Binary::of(&file);
        assert!(binary.as_ref().is_ok_and(|binary| binary.machine == std::env::consts::ARCH), "{binary:?}");
        if cfg!(target_env = "gnu") {
            let is_told = |binary: &Binary| {
                binary.needs.iter().any(|name| name == "libc.so.6")
                    && binary.glibc.as_deref().is_some_and(|version| version.starts_with("2."))
            };
            assert!(binary.as_ref().is_ok_and(is_told), "{binary:?}");
        }
    }

    #[test]
    fn a_file_that_is_cut_or_no_program_is_refused_and_never_a_panic() {
        let file = std::env::current_exe().and_then(std::fs::read).unwrap_or_default();
        assert!(Binary::of(b"#!/bin/sh\n").is_err());
        for length in (0..4096.min(file.len())).step_by(7) {
            assert!(Binary::of(&file[..length]).is_err(), "{length}");
        }
        let mut hostile = file[..4096].to_vec();
        for at in 0..hostile.len() {
            let byte = std::mem::replace(&mut hostile[at], 0xff);
            drop(Binary::of(&hostile));
            hostile[at] = byte;
        }
    }

    #[test]
    fn versions_are_numbers_and_not_words() {
        assert!(version("2.9") < version("2.34"));
        assert_eq!(version("PRIVATE"), None);
    }
}
