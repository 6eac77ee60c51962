//! The copies: whether they are reached, whether they would outlive what takes the original, and whether their store keeps what it
//! locks.

use std::os::unix::fs::MetadataExt as _;

use crate::doctor::{Cause, Finding, State};
use crate::human;
use crate::place;
use crate::place::PlaceError;
use crate::policy::{CopyPlace, CopyTarget, Policy, S3Place, lints};
use crate::run::Run;
use crate::store::s3::Probe;
use crate::store::{Key, StoreError};

pub(super) async fn examine(policy: &Policy, run: &Run) -> Vec<Finding> {
    let mut findings = Vec::new();
    for copy in &policy.copies {
        let reached = reached(policy, copy, run).await;
        let is_reached = reached.state == State::Ok;
        findings.push(reached);
        findings.extend(apart(policy, copy, run).await);
        if let (CopyTarget::S3(place), true, true) = (&copy.place, is_reached, copy.object_lock().is_some()) {
            findings.extend(locked(policy, copy, place, run).await);
        }
    }
    findings.extend(lints(policy).into_iter().map(|lint| {
        let what = format!("{}: outlives what takes the original", lint.subject);
        Finding::new(State::Warning, what, lint.what, Some(lint.remedy))
    }));
    findings
}

/// Reads the copy's config: the way there, the credentials and the bucket, with one small request.
async fn reached(policy: &Policy, copy: &CopyPlace, run: &Run) -> Finding {
    let what = format!("copy {}: can be reached", copy.name);
    let store = match place::copy_store(policy, copy, run).await {
        Ok(store) => store,
        // With credentials that may only write there is nothing to ask for that would leave no trace.
        Err(PlaceError::WriteOnly(_)) => return writer(policy, copy, run).await,
        Err(error) => return bad(what, &error),
    };
    match store.size(&Key::config()).await {
        Ok(Some(_)) => Finding::ok(what, store.location()),
        Ok(None) => Finding::ok(what, format!("{} (empty; the first run fills it)", store.location())),
        Err(error) => Finding::new(State::Bad, what, human::chain(&error), error.hint()).because(cause_of(&error)),
    }
}

/// Opens the way of a copy that nobody can look at, which checks the route and reads the credentials.
async fn writer(policy: &Policy, copy: &CopyPlace, run: &Run) -> Finding {
    let what = format!("copy {}: can be reached", copy.name);
    match place::copy_target(policy, copy, run).await {
        Ok(store) => {
            let detail = format!("{}: write-only, so only a copy can tell", store.location());
            let hint = PlaceError::WriteOnly(copy.name.clone()).hint();
            Finding::new(State::Warning, what, detail, hint)
        }
        Err(error) => bad(what, &error),
    }
}

fn bad(what: String, error: &PlaceError) -> Finding {
    let cause = match error {
        PlaceError::Credentials { .. } => Cause::Password,
        PlaceError::Copy { error, .. } => cause_of(error),
        _ => Cause::Other,
    };
    Finding::new(State::Bad, what, human::chain(error), error.hint()).because(cause)
}

fn cause_of(error: &StoreError) -> Cause {
    match error {
        StoreError::Refused { .. } => Cause::Network,
        StoreError::Denied { .. } => Cause::Password,
        _ => Cause::Other,
    }
}

/// Warns of a copy on the repository's own disk or machine; what cannot be found out is not told.
async fn apart(policy: &Policy, copy: &CopyPlace, run: &Run) -> Option<Finding> {
    let what = format!("copy {}: lies apart from the repository", copy.name);
    let hint = "keep it on another disk, best at another site: a copy beside the original is lost with it".to_owned();
    match &copy.place {
        CopyTarget::Dir(dir) => {
            let device = |path: &std::path::Path| std::fs::metadata(path).map(|meta| meta.dev()).ok();
            let is_same = device(dir)? == device(&policy.repository.path)?;
            let detail = format!("{} is on the repository's own filesystem", dir.display());
            Some(if is_same {
                Finding::new(State::Warning, what, detail, Some(hint))
            } else {
                Finding::ok(what, format!("{} is another filesystem", dir.display()))
            })
        }
        // One that says so by its name is told of by the policy's lints.
        CopyTarget::S3(place) if place.is_loopback() => None,
        CopyTarget::S3(place) => {
            let store = place::s3_writer(policy, copy, place, run).await.ok()?;
            store.is_here().await.then(|| Finding::new(State::Warning, what, "its server is this machine", Some(hint)))
        }
    }
}

/// Tries out what the bucket does with a lock: puts an object of a few bytes with a lock of a minute, and tries to delete it.
async fn locked(policy: &Policy, copy: &CopyPlace, place: &S3Place, run: &Run) -> Vec<Finding> {
    let what = |text: &str| format!("copy {}: {text}", copy.name);
    let stores = async {
        let writer = place::s3_writer(policy, copy, place, run).await?;
        Ok::<_, PlaceError>((writer, place::s3_reader(policy, copy, place, run).await?))
    };
    let (writer, reader) = match stores.await {
        Ok(stores) => stores,
        // Told already: nobody may look.
        Err(PlaceError::WriteOnly(_)) => return Vec::new(),
        Err(error) => return vec![bad(what("locks what it is asked to"), &error)],
    };
    let probe = match Probe::of(&writer, &reader).await {
        Ok(probe) => probe,
        Err(error) => {
            let hint = "make the bucket with Object Lock, and let the key s3:PutObject and s3:PutObjectRetention";
            let finding = Finding::new(
                State::Bad,
                what("locks what it is asked to"),
                human::chain(&error),
                Some(hint.to_owned()),
            );
            return vec![finding.because(cause_of(&error))];
        }
    };
    let (left, until) = &probe.left;
    let left =
        format!("left in {left}: an object of 57 bytes, locked until {}", human::exact_time(*until, policy.timezone));
    vec![
        of_answer(what("locks no lock files"), &probe.locks_all, "s3:GetBucketObjectLockConfiguration", |locks| {
            match locks {
                false => Ok("the bucket has no default retention".to_owned()),
                true => Err((
                    State::Warning,
                    "the bucket's default retention locks whatever is put, the repository's lock files included: each leaves a version that \
                 stays for all of it",
                    "remove the bucket's default retention: bkp locks what it should",
                )),
            }
        }),
        of_answer(what("tells the end of a lock"), &probe.reads_back, "s3:GetObjectRetention", |end| match end {
            Some(end) => Ok(human::exact_time(*end, policy.timezone)),
            None => Err((
                State::Bad,
                "the object has no lock, or the key may not see it",
                "let the key s3:GetObjectRetention; a server that ignores the lock is of no use for it",
            )),
        }),
        refused(what("refuses to delete what is locked"), &probe, left),
    ]
}

fn refused(what: String, probe: &Probe, left: String) -> Finding {
    match &probe.refuses {
        Some(Ok(true)) => Finding::ok(what, left),
        Some(Ok(false)) => {
            Finding::ok(what, format!("{left} (refused without a word whether for the lock or for the key's rights)"))
        }
        Some(Err(error)) => {
            let hint = "do not rely on this store's Object Lock";
            Finding::new(State::Bad, what, human::chain(error), Some(hint.to_owned()))
        }
        None => {
            let hint = "make the bucket with Object Lock, which keeps versions";
            let detail = format!("the bucket keeps no versions, and without them no lock holds; {left}");
            Finding::new(State::Bad, what, detail, Some(hint.to_owned()))
        }
    }
}

/// Judges an answer, or tells why there is none: a right that is missing leaves it open.
fn of_answer<T>(
    what: String,
    answer: &Result<T, StoreError>,
    right: &str,
    judge: impl Fn(&T) -> Result<String, (State, &'static str, &'static str)>,
) -> Finding {
    match answer.as_ref().map(judge) {
        Ok(Ok(detail)) => Finding::ok(what, detail),
        Ok(Err((state, detail, hint))) => Finding::new(state, what, detail, Some(hint.to_owned())),
        Err(error) => {
            let hint = format!("let the key {right}, or look at it in the store's own console");
            Finding::new(State::Warning, what, human::chain(error), Some(hint))
        }
    }
}
