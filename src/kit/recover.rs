//! A policy of a kit, as it is on a bare machine: the copy stands for the repository, and nothing of the lost machine is needed.

use std::path::Path;

use crate::kit::facts::{ca_file, key_file, policy_file};
use crate::kit::{KitError, folder};
use crate::policy::{Access, CopyPlace, CopyTarget, FromKit, Network, Policy};
use crate::secret::{Secret, SecretSource};

/// Reads a policy of a kit. `credentials_given`: the environment has those of the object store.
///
/// The way out is not held to the backup network: on another machine its interface and addresses are others. State goes into the kit.
///
/// # Errors
/// [`KitError`] where it is no kit, or not of that policy.
pub fn policy_of(dir: &Path, name: &str, passphrase: Secret, credentials_given: bool) -> Result<Policy, KitError> {
    let dir = std::path::absolute(dir).map_err(super::io_error("find", dir))?;
    let kit = folder::read(&dir)?;
    let Some(of_kit) = kit.policies.iter().find(|policy| policy.name == name) else {
        let known = kit.policies.into_iter().map(|policy| policy.name).collect();
        return Err(KitError::NoPolicy { name: name.to_owned(), known });
    };
    let mut policy = Policy::load(&dir.join(policy_file(name)))?;
    policy.repository.password = SecretSource::Given(passphrase);
    policy.repository.from_kit = Some(FromKit { key_file: dir.join(key_file(name)), copy: of_kit.from.clone() });
    policy.state_dir = dir.join("state").join(name);
    policy.network = Network::default();
    (policy.drill.work_dir, policy.drill.report_dir) = (None, None);
    for copy in &mut policy.copies {
        settle(copy, &dir, name, credentials_given);
    }
    Ok(policy)
}

/// Gives a copy the authority from the kit, and the credentials that were typed.
fn settle(copy: &mut CopyPlace, dir: &Path, policy: &str, credentials_given: bool) {
    let CopyTarget::S3(s3) = &mut copy.place else { return };
    if s3.ca_file.is_some() {
        s3.ca_file = Some(dir.join(ca_file(policy, &copy.name)));
    }
    if credentials_given {
        // Whoever recovers types a key that may read, whatever the lost machine's could.
        (s3.access_key_id, s3.secret_access_key) = (None, None);
        (s3.reader, s3.access) = (None, Access::Full);
    }
}
