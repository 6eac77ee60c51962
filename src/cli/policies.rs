//! Which policies a command is about: named ones, or every one in the policies' directory.

use std::path::PathBuf;

use crate::cli::args::Global;
use crate::cli::kit;
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

/// Loads one policy by path or name, or by its name from a kit.
pub(super) fn one(global: &Global, name: &str) -> Result<Policy, Failure> {
    match &global.kit {
        Some(dir) => kit::policy_of(global, dir, name),
        None => Ok(Policy::load(&policy::find(name, &dirs(global))?)?),
    }
}

/// The policies that a command is about, and why the others are not among them.
pub(super) struct Loaded {
    pub(super) good: Vec<Policy>,
    pub(super) bad: Vec<Failure>,
}

/// Loads the named policies, or every one in the policies' directory. One that is wrong does not stand in the others' way.
///
/// # Errors
/// [`Failure`] where there is none at all to load.
pub(super) fn all(global: &Global, names: &[String]) -> Result<Loaded, Failure> {
    let mut loaded = Loaded { good: Vec::new(), bad: Vec::new() };
    let policies: Vec<Result<Policy, Failure>> = if names.is_empty() {
        paths(global, names)?.iter().map(|path| Ok(Policy::load(path)?)).collect()
    } else {
        names.iter().map(|name| one(global, name)).collect()
    };
    for policy in policies {
        match policy {
            Ok(policy) => loaded.good.push(policy),
            Err(failure) => loaded.bad.push(failure),
        }
    }
    Ok(loaded)
}

/// Returns the files of the named policies, or of every one in the first directory that has any.
///
/// # Errors
/// [`Failure`] where a name means no file, or no directory has one.
pub(super) fn paths(global: &Global, names: &[String]) -> Result<Vec<PathBuf>, Failure> {
    let dirs = dirs(global);
    if !names.is_empty() {
        return names.iter().map(|name| Ok(policy::find(name, &dirs)?)).collect();
    }
    let paths = policy::all(&dirs)?;
    if paths.is_empty() {
        let places: Vec<String> = dirs.iter().map(|dir| format!("`{}`", dir.display())).collect();
        let failure = Failure::new(Exit::Usage, format!("find policies: no file *.toml in {}", places.join(" or ")));
        return Err(failure.hinting(
            "copy policies/minimal.toml there and fill it in, or name a policy file, or its directory with `--policies DIR`",
        ));
    }
    Ok(paths)
}
