//! Which file a policy's name means.

use std::fs;
use std::path::{Path, PathBuf};

use crate::policy::check::fields::near;
use crate::policy::error::PolicyError;

/// Returns the file of a policy: a path (with a slash or `.toml` in it) as it stands, a name as `NAME.toml` in the first
/// directory that has it.
pub fn find(name_or_path: &str, dirs: &[PathBuf]) -> Result<PathBuf, PolicyError> {
    let is_toml = Path::new(name_or_path).extension().is_some_and(|extension| extension == "toml");
    if name_or_path.contains('/') || is_toml {
        return Ok(PathBuf::from(name_or_path));
    }
    let files = dirs.iter().map(|dir| dir.join(format!("{name_or_path}.toml")));
    files.into_iter().find(|file| file.is_file()).ok_or_else(|| not_found(name_or_path, dirs))
}

/// Returns the policies of the first directory that has any, by name.
///
/// Only the first: an operator's policies in `/etc/bkp/policies` are not mixed with examples in the working directory.
pub fn all(dirs: &[PathBuf]) -> Result<Vec<PathBuf>, PolicyError> {
    for dir in dirs {
        let files = policies_in(dir)?;
        if !files.is_empty() {
            return Ok(files);
        }
    }
    Ok(Vec::new())
}

fn policies_in(dir: &Path) -> Result<Vec<PathBuf>, PolicyError> {
    let read_error = |error| PolicyError::Read { path: dir.to_owned(), error };
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(read_error)? {
        let path = entry.map_err(read_error)?.path();
        let is_hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
        if !is_hidden && path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn not_found(name: &str, dirs: &[PathBuf]) -> PolicyError {
    let files = dirs.iter().flat_map(|dir| policies_in(dir).unwrap_or_default());
    let names: Vec<String> = files.filter_map(|file| Some(file.file_stem()?.to_str()?.to_owned())).collect();
    PolicyError::NotFound {
        name: name.to_owned(),
        looked: dirs.to_vec(),
        near: near(name, names.iter().map(String::as_str)).map(str::to_owned),
    }
}
