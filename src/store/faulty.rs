//! A store that fails on purpose, at a chosen operation and in a chosen way.
//!
//! It is part of the library because every test that cuts, stalls or starves a run needs it, those of the binary included;
//! no policy can name it. A run that must survive "a kill at any operation" is tried with [`Fault::Dead`] at each in turn.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::store::{FileKind, Key, Listed, SharedStore, Store, StoreError};

/// What a rule counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    Put,
    Get,
    GetRange,
    List,
    Size,
    Delete,
    ImmutableUntil,
    KeepImmutable,
    Any,
}

/// The way in which an operation fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done, and another try may succeed.
    Transient,
    /// Nothing is done, and the store asks to be left alone for so long.
    Busy(Duration),
    /// Nothing is done, and access is denied.
    Denied,
    /// Nothing is done, for want of space.
    Full,
    /// The object does not come back, as from a bad sector.
    Unreadable,
    /// It is done, and the answer is lost on the way back.
    AnswerLost,
    /// It is said to be done and is not: a put by a server that lies.
    Swallowed,
    /// It never ends.
    Stall,
    /// One bit of what is put or got is another.
    Flip,
    /// What is put or got lacks its last byte.
    Cut,
    /// From here on nothing is done at all, as after a `kill -9`.
    Dead,
}

/// Says which operation fails, and how.
#[derive(Debug, Clone)]
pub struct Rule {
    operation: Operation,
    /// Of this kind of object only, and of this name.
    kind: Option<FileKind>,
    name: Option<String>,
    /// The how-manieth operation that the rule fits, from 1; `None`: each.
    nth: Option<u64>,
    fault: Fault,
    seen: u64,
}

impl Rule {
    /// The `nth` operation fails, counted from 1 when the rule is added.
    #[must_use]
    pub fn nth(operation: Operation, nth: u64, fault: Fault) -> Self {
        Self { operation, kind: None, name: None, nth: Some(nth), fault, seen: 0 }
    }

    /// Each such operation fails.
    #[must_use]
    pub fn every(operation: Operation, fault: Fault) -> Self {
        Self { nth: None, ..Self::nth(operation, 0, fault) }
    }

    /// Narrows the rule down to one kind of object.
    #[must_use]
    pub fn of(self, kind: FileKind) -> Self {
        Self { kind: Some(kind), ..self }
    }

    /// Narrows the rule down to one object.
    #[must_use]
    pub fn on(self, key: &Key) -> Self {
        Self { name: Some(key.name.clone()), ..self.of(key.kind) }
    }

    /// Counts an operation if the rule fits it, and tells whether it is the one.
    fn strikes(&mut self, operation: Operation, kind: FileKind, name: &str) -> bool {
        let fits = (self.operation == Operation::Any || self.operation == operation)
            && self.kind.is_none_or(|of| of == kind)
            && self.name.as_deref().is_none_or(|of| of == name);
        if fits {
            self.seen += 1;
        }
        fits && self.nth.is_none_or(|nth| nth == self.seen)
    }
}

/// One operation that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub operation: Operation,
    pub kind: FileKind,
    /// Empty for listings.
    pub name: String,
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    log: Vec<Asked>,
    dead: bool,
    at_once: usize,
    at_once_max: usize,
}

/// Fails as its rules say, and keeps a log of what it was asked.
pub struct Faulty {
    inner: SharedStore,
    state: Mutex<State>,
}

impl Faulty {
    /// Wraps a store; without a rule it only keeps the log.
    pub fn new(inner: SharedStore) -> Self {
        Self { inner, state: Mutex::default() }
    }

    pub fn add(&self, rule: Rule) {
        self.state().rules.push(rule);
    }

    /// Takes all rules back and wakes the dead: the network works again.
    pub fn heal(&self) {
        let mut state = self.state();
        state.rules.clear();
        state.dead = false;
    }

    /// Returns how many operations were asked for, those that failed included.
    #[must_use]
    pub fn count(&self, operation: Operation) -> usize {
        let fits = |asked: &&Asked| operation == Operation::Any || asked.operation == operation;
        self.state().log.iter().filter(fits).count()
    }

    /// Returns what was asked for, in order, and starts a new log.
    pub fn take_log(&self) -> Vec<Asked> {
        std::mem::take(&mut self.state().log)
    }

    /// Returns the most operations that ever ran at once.
    #[must_use]
    pub fn at_once_max(&self) -> usize {
        self.state().at_once_max
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs an operation and returns the fault that strikes it.
    fn strike(&self, operation: Operation, kind: FileKind, name: &str) -> Option<Fault> {
        let mut state = self.state();
        state.log.push(Asked { operation, kind, name: name.to_owned() });
        if state.dead {
            return Some(Fault::Dead);
        }
        let struck = |rule: &mut Rule| rule.strikes(operation, kind, name).then(|| rule.fault.clone());
        // Every rule counts, also past the first that strikes.
        let faults: Vec<_> = state.rules.iter_mut().filter_map(struck).collect();
        let fault = faults.into_iter().next();
        state.dead = fault == Some(Fault::Dead);
        fault
    }

    /// Counts one operation as running until the guard is dropped.
    fn enter(&self) -> Running<'_> {
        let mut state = self.state();
        state.at_once += 1;
        state.at_once_max = state.at_once_max.max(state.at_once);
        drop(state);
        Running(self)
    }

    /// Lives through the part of a fault that comes before the inner store is asked.
    async fn before(&self, fault: Option<&Fault>, act: &'static str, thing: &str) -> Result<(), StoreError> {
        let thing = thing.to_owned();
        match fault {
            Some(Fault::Transient) => Err(transient(act, thing, "injected fault")),
            Some(Fault::Busy(after)) => {
                Err(StoreError::Busy { act, thing, reason: "injected fault".to_owned(), after: *after })
            }
            Some(Fault::Dead) => Err(StoreError::Failed { act, thing, reason: "injected death".to_owned() }),
            Some(Fault::Denied) => Err(StoreError::Denied { act, thing, reason: "injected fault".to_owned() }),
            Some(Fault::Full) => Err(StoreError::Full { act, thing }),
            Some(Fault::Unreadable) => {
                Err(StoreError::Unreadable { act, thing, reason: "injected bad sector".to_owned() })
            }
            Some(Fault::Stall) => std::future::pending().await,
            Some(Fault::AnswerLost | Fault::Swallowed | Fault::Flip | Fault::Cut) | None => Ok(()),
        }
    }
}

struct Running<'a>(&'a Faulty);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.state().at_once -= 1;
    }
}

fn transient(act: &'static str, thing: String, reason: &str) -> StoreError {
    StoreError::Transient { act, thing, reason: reason.to_owned() }
}

/// Lives through the part of a fault that comes after the inner store has answered.
fn after<T>(fault: Option<&Fault>, act: &'static str, thing: &str, value: T) -> Result<T, StoreError> {
    if fault == Some(&Fault::AnswerLost) {
        return Err(transient(act, thing.to_owned(), "injected loss of the answer"));
    }
    Ok(value)
}

/// Returns the bytes as a damaging fault leaves them.
fn damaged(fault: Option<&Fault>, bytes: Bytes) -> Bytes {
    let mut damaged = bytes.to_vec();
    match fault {
        Some(Fault::Flip) if !bytes.is_empty() => damaged[bytes.len() / 2] ^= 1,
        Some(Fault::Cut) => damaged.truncate(bytes.len().saturating_sub(1)),
        _ => return bytes,
    }
    Bytes::from(damaged)
}

#[async_trait::async_trait]
impl Store for Faulty {
    fn location(&self) -> String {
        self.inner.location()
    }

    async fn put(&self, key: &Key, bytes: Bytes) -> Result<(), StoreError> {
        let _running = self.enter();
        let fault = self.strike(Operation::Put, key.kind, &key.name);
        let thing = key.path();
        self.before(fault.as_ref(), "put", &thing).await?;
        if fault == Some(Fault::Swallowed) {
            return Ok(());
        }
        self.inner.put(key, damaged(fault.as_ref(), bytes)).await?;
        after(fault.as_ref(), "put", &thing, ())
    }

    async fn get(&self, key: &Key) -> Result<Bytes, StoreError> {
        let _running = self.enter();
        let fault = self.strike(Operation::Get, key.kind, &key.name);
        let thing = key.path();
        self.before(fault.as_ref(), "get", &thing).await?;
        let bytes = damaged(fault.as_ref(), self.inner.get(key).await?);
        after(fault.as_ref(), "get", &thing, bytes)
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        let _running = self.enter();
        let fault = self.strike(Operation::GetRange, key.kind, &key.name);
        let thing = key.path();
        self.before(fault.as_ref(), "get a part of", &thing).await?;
        let bytes = damaged(fault.as_ref(), self.inner.get_range(key, range).await?);
        after(fault.as_ref(), "get a part of", &thing, bytes)
    }

    async fn list(&self, kind: FileKind) -> Result<Vec<Listed>, StoreError> {
        let _running = self.enter();
        let fault = self.strike(Operation::List, kind, "");
        let thing = self.location();
        self.before(fault.as_ref(), "list", &thing).await?;
        let listed = self.inner.list(kind).await?;
        after(fault.as_ref(), "list", &thing, listed)
    }

    async fn size(&self, key: &Key) -> Result<Option<u64>, StoreError> {
        let _running = self.enter();
        let fault = self.strike(Operation::Size, key.kind, &key.name);
        let thing = key.path();
        self.before(fault.as_ref(), "look at", &thing).await?;
        let size = self.inner.size(key).await?;
        after(fault.as_ref(), "look at", &thing, size)
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let _running = self.enter();
        let fault = self.strike(Operation::Delete, key.kind, &key.name);
        let thing = key.path();
        self.before(fault.as_ref(), "delete", &thing).await?;
        self.inner.delete(key).await?;
        after(fault.as_ref(), "delete", &thing, ())
    }

    async fn immutable_until(&self, key: &Key) -> Result<Option<DateTime<Utc>>, StoreError> {
        let _running = self.enter();
        let fault = self.strike(Operation::ImmutableUntil, key.kind, &key.name);
        let thing = key.path();
        self.before(fault.as_ref(), "look at", &thing).await?;
        let until = self.inner.immutable_until(key).await?;
        // A server that takes the wish and does not heed it.
        let until = until.filter(|_| fault != Some(Fault::Swallowed));
        after(fault.as_ref(), "look at", &thing, until)
    }

    async fn keep_immutable(
        &self,
        key: &Key,
        least: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<DateTime<Utc>, StoreError> {
        let _running = self.enter();
        let fault = self.strike(Operation::KeepImmutable, key.kind, &key.name);
        let thing = key.path();
        self.before(fault.as_ref(), "make immutable", &thing).await?;
        let until = self.inner.keep_immutable(key, least, until).await?;
        after(fault.as_ref(), "make immutable", &thing, until)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use super::*;
    use crate::store::memory::MemoryStore;

    fn faulty() -> Faulty {
        Faulty::new(Arc::new(MemoryStore::new()))
    }

    fn key(n: u8) -> Key {
        Key::new(FileKind::Pack, hex::encode([n; 32]))
    }

    #[tokio::test]
    async fn only_the_chosen_operation_fails() {
        let store = faulty();
        store.add(Rule::nth(Operation::Put, 2, Fault::Transient).of(FileKind::Pack));
        store.put(&Key::config(), Bytes::new()).await.unwrap();
        store.put(&key(1), Bytes::new()).await.unwrap();
        assert!(store.put(&key(2), Bytes::new()).await.unwrap_err().is_transient());
        store.put(&key(2), Bytes::new()).await.unwrap();
    }

    #[tokio::test]
    async fn a_dead_store_does_nothing_until_it_is_healed() {
        let store = faulty();
        store.add(Rule::nth(Operation::Any, 2, Fault::Dead));
        store.put(&key(1), Bytes::new()).await.unwrap();
        assert!(store.put(&key(2), Bytes::new()).await.is_err());
        assert!(store.get(&key(1)).await.is_err());
        store.heal();
        assert_eq!(store.list(FileKind::Pack).await.unwrap().len(), 1);
        assert_eq!(store.count(Operation::Any), 4);
    }

    #[tokio::test]
    async fn a_lost_answer_leaves_the_object_there() {
        let store = faulty();
        store.add(Rule::nth(Operation::Put, 1, Fault::AnswerLost));
        assert!(store.put(&key(1), Bytes::from_static(b"x")).await.is_err());
        assert_eq!(store.size(&key(1)).await.unwrap(), Some(1));
    }

    #[tokio::test]
    async fn damage_changes_the_bytes_and_says_nothing() {
        let store = faulty();
        store.add(Rule::nth(Operation::Get, 1, Fault::Flip));
        store.add(Rule::nth(Operation::Get, 2, Fault::Cut));
        store.put(&key(1), Bytes::from_static(b"abc")).await.unwrap();
        assert_eq!(store.get(&key(1)).await.unwrap(), Bytes::from_static(b"acc"));
        assert_eq!(store.get(&key(1)).await.unwrap(), Bytes::from_static(b"ab"));
        assert_eq!(store.get(&key(1)).await.unwrap(), Bytes::from_static(b"abc"));
    }
}
