//! What a Linux program needs of the machine that it is to run on, as its ELF headers say.

use std::fmt;

use object::LittleEndian;
use object::elf::{
    DT_NEEDED, DT_NULL, DT_STRSZ, DT_STRTAB, Dyn64, DynamicTag, EM_AARCH64, EM_X86_64, FileHeader64, Machine, PT_LOAD,
    ProgramHeader64,
};
use object::read::StringTable;
use object::read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _};
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
    /// Reads the headers of a 64-bit little-endian ELF file, as who starts it reads them: sections may have been stripped.
    ///
    /// # Errors
    /// Says what it is instead.
    pub fn of(file: &[u8]) -> Result<Self, String> {
        let refusal = |error: object::Error| format!("it is no 64-bit Linux program: {error}");
        let header = FileHeader64::<LittleEndian>::parse(file).map_err(refusal)?;
        let endian = header.endian().map_err(refusal)?;
        let segments = header.program_headers(endian, file).map_err(refusal)?;
        let dynamic = segments.iter().find_map(|segment| segment.dynamic(endian, file).transpose());
        let dynamic = Dynamic { entries: dynamic.transpose().map_err(refusal)?.unwrap_or_default(), endian };
        let strings = dynamic.strings(file, segments)?;
        Ok(Self {
            machine: machine(header.e_machine(endian)),
            needs: dynamic.needs(strings)?,
            glibc: newest_glibc(strings),
        })
    }
}

/// The section for the dynamic linker; of a static program it is empty, or names no library.
struct Dynamic<'a> {
    entries: &'a [Dyn64<LittleEndian>],
    endian: LittleEndian,
}

impl<'a> Dynamic<'a> {
    fn values(&self, tag: DynamicTag) -> impl Iterator<Item = u64> {
        let entries = self.entries.iter().take_while(|entry| entry.d_tag(self.endian) != DT_NULL);
        entries.filter(move |entry| entry.d_tag(self.endian) == tag).map(|entry| entry.d_val(self.endian))
    }

    /// Finds the strings where they will be loaded.
    fn strings(&self, file: &'a [u8], segments: &[ProgramHeader64<LittleEndian>]) -> Result<&'a [u8], String> {
        let Some(address) = self.values(DT_STRTAB).next() else { return Ok(&[]) };
        let size = self.values(DT_STRSZ).next().unwrap_or_default();
        for segment in segments.iter().filter(|segment| segment.p_type(self.endian) == PT_LOAD) {
            let found = segment.data_range(self.endian, file, address, size);
            if let Some(strings) = found.map_err(|()| "it is cut short".to_owned())? {
                return Ok(strings);
            }
        }
        Err("its strings lie nowhere".to_owned())
    }

    fn needs(&self, strings: &[u8]) -> Result<Vec<String>, String> {
        let table = StringTable::new(strings, 0, strings.len() as u64);
        let name = |at: u64| table.get(u32::try_from(at).map_err(drop)?);
        let names = self.values(DT_NEEDED).map(|at| name(at).map(|name| String::from_utf8_lossy(name).into_owned()));
        names.collect::<Result<_, ()>>().map_err(|()| "the name of a library lies past its strings".to_owned())
    }
}

fn machine(machine: Machine) -> String {
    match machine {
        EM_X86_64 => "x86_64".to_owned(),
        EM_AARCH64 => "aarch64".to_owned(),
        Machine(number) => format!("machine {number}"),
    }
}

/// The names of all versions that are asked for lie among the strings.
fn newest_glibc(strings: &[u8]) -> Option<String> {
    let texts = strings.split(|byte| *byte == 0).filter_map(|text| std::str::from_utf8(text).ok());
    let newest = texts.filter_map(|text| version(text.strip_prefix("GLIBC_")?)).max()?;
    Some(newest.iter().map(u32::to_string).collect::<Vec<_>>().join("."))
}

/// Reads `2.34`; `None` for `PRIVATE` and other words.
fn version(text: &str) -> Option<Vec<u32>> {
    text.split('.').map(|part| part.parse().ok()).collect()
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
