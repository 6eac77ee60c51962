//! Fingerprint of a tree: path, kind, size, time, mode and bytes of every file and directory.

use anyhow::Context as _;
use sha2::Digest as _;
use sha2::Sha256;
use std::fs;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::thread;

/// Prints the number of entries and one fingerprint; with `list` first a line for each entry.
pub(crate) fn print(dir: &Path, list: bool) -> anyhow::Result<()> {
    let mut paths = Vec::new();
    collect(dir, &mut paths)?;
    paths.sort();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let share = paths.len().div_ceil(cores).max(1);
    let lines: Vec<anyhow::Result<Vec<String>>> = thread::scope(|scope| {
        let describe = |paths: &[PathBuf]| paths.iter().map(|path| describe(dir, path)).collect();
        let threads: Vec<_> = paths.chunks(share).map(|paths| scope.spawn(move || describe(paths))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| anyhow::bail!("a reader panicked"))).collect()
    });
    let lines: Vec<String> = lines.into_iter().collect::<anyhow::Result<Vec<_>>>()?.concat();
    if list {
        println!("{}", lines.join("\n"));
    }
    println!("files {} {}", lines.len(), hex::encode(Sha256::digest(lines.join("\n"))));
    Ok(())
}

fn collect(dir: &Path, paths: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("list `{}`", dir.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), paths)?;
        }
        paths.push(entry.path());
    }
    Ok(())
}

fn describe(root: &Path, path: &Path) -> anyhow::Result<String> {
    let seen = || format!("look at `{}`", path.display());
    let meta = fs::symlink_metadata(path).with_context(seen)?;
    let content = if meta.is_dir() {
        "directory".to_owned()
    } else if meta.is_symlink() {
        format!("-> {}", fs::read_link(path).with_context(seen)?.display())
    } else {
        let mut hash = Sha256::new();
        io::copy(&mut File::open(path).with_context(seen)?, &mut Hashing(&mut hash)).with_context(seen)?;
        hex::encode(hash.finalize())
    };
    let size = if meta.is_dir() { 0 } else { meta.len() };
    let path = path.strip_prefix(root)?.display();
    Ok(format!("{path} {size} {}.{:09} {:o} {content}", meta.mtime(), meta.mtime_nsec(), meta.mode()))
}

struct Hashing<'a>(&'a mut Sha256);

impl io::Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
