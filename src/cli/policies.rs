//! Which policies a command is about: named ones, or every one in the policies' directory.

use std::path::PathBuf;

use crate::cli::args::Global;
use crate::exit::{Exit, Failure};
use crate::policy;
use crate::policy::Policy;

/// Returns the directories in which policies are looked up by name.
pub(super) fn dirs(global: &Global) -> Vec<PathBuf> {
    match &global.policies_dir {
        Some(dir) => vec![dir.clone()],
        None => vec![PathBuf::from("/etc/bkp/policies"), PathBuf::from("policies")],
    }
}

/// Loads one policy by path or name.
pub(super) fn one(global: &Global, name: &str) -> Result<Policy, Failure> {
    Ok(Policy::load(&policy::find(name, &dirs(global))?)?)
}

/// Loads the named policies, or every one in the first directory that is there.
pub(super) fn all(global: &Global, names: &[String]) -> Result<Vec<Policy>, Failure> {
    paths(global, names)?.iter().map(|path| Ok(Policy::load(path)?)).collect()
}

/// Returns the files of the named policies, or of every one in the first directory that is there.
pub(super) fn paths(global: &Global, names: &[String]) -> Result<Vec<PathBuf>, Failure> {
    let dirs = dirs(global);
    if !names.is_empty() {
        return names.iter().map(|name| Ok(policy::find(name, &dirs)?)).collect();
    }
    let Some(dir) = dirs.iter().find(|dir| dir.is_dir()) else {
        let places: Vec<String> = dirs.iter().map(|dir| format!("`{}`", dir.display())).collect();
        let failure = Failure::new(Exit::Usage, format!("find policies: no directory {}", places.join(" or ")));
        return Err(failure.hinting("name a policy file, or its directory with `--policies DIR`"));
    };
    let refusal =
        |error: std::io::Error| Failure::new(Exit::Usage, format!("list policies in `{}`: {error}", dir.display()));
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(refusal)? {
        let path = entry.map_err(refusal)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    if paths.is_empty() {
        let failure = Failure::new(Exit::Usage, format!("find policies: no file *.toml in `{}`", dir.display()));
        return Err(failure.hinting("copy policies/minimal.toml there and fill it in"));
    }
    Ok(paths)
}
