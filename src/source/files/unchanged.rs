//! Whether a file is the one that the parent snapshot holds, without reading it.

use chrono::{DateTime, TimeDelta, Utc};

use crate::entry::{Kind, Metadata};

/// How far from the moment of its reading a file must have been changed for its times to prove anything.
///
/// A filesystem's clock ticks: two writes within one tick leave the same ctime, and a snapshot may have read between
/// them. The coarsest tick still met is FAT's two seconds.
const TICK: TimeDelta = TimeDelta::seconds(2);

/// The same where a file server's clock sets the times: how far it may differ from ours besides.
///
/// A server that is further behind is caught too, unless the second write falls into the very tick of our reading.
const TICK_REMOTE: TimeDelta = TimeDelta::seconds(60);

/// The moment up to which a parent's word is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanBefore(DateTime<Utc>);

impl CleanBefore {
    /// Takes the start of the run that wrote the parent: it read nothing before that.
    #[must_use]
    pub fn new(parent_start: DateTime<Utc>, is_remote: bool) -> Self {
        Self(parent_start - if is_remote { TICK_REMOTE } else { TICK })
    }

    /// Tells whether an entry still is what the parent saw.
    ///
    /// The modification time alone proves nothing: rsync, tar and cp -p set it. The change time is the kernel's own. The
    /// device number is not asked, because every mount of an NFS export gets a new one; an inode of another filesystem
    /// with the same number, size and times to the nanosecond does not happen.
    #[must_use]
    pub fn trusts(&self, parent: &Metadata, now: &Metadata) -> bool {
        is_same_state(parent, now) && now.ctime.max(now.mtime) < self.0
    }
}

/// Tells whether two looks at an entry saw the same state, as far as its times can tell.
#[must_use]
pub fn is_same_state(before: &Metadata, after: &Metadata) -> bool {
    let of = |seen: &Metadata| (seen.inode, seen.size, seen.mtime, seen.ctime, seen.mode, seen.uid, seen.gid);
    is_same_kind(&before.kind, &after.kind) && of(before) == of(after)
}

fn is_same_kind(before: &Kind, after: &Kind) -> bool {
    std::mem::discriminant(before) == std::mem::discriminant(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 123_456_789).unwrap_or_default()
    }

    fn file() -> Metadata {
        Metadata {
            kind: Kind::File,
            mode: 0o644,
            uid: 33,
            gid: 33,
            user: "www-data".into(),
            group: String::new(),
            size: 4_096,
            mtime: at(0),
            atime: at(0),
            ctime: at(0),
            device: 40,
            inode: 7,
            links: 1,
            xattrs: Vec::new(),
        }
    }

    #[test]
    fn a_file_left_alone_is_trusted_also_after_a_remount() {
        let now = Metadata { device: 41, atime: at(99), user: String::new(), ..file() };
        assert!(CleanBefore::new(at(10), false).trusts(&file(), &now));
    }

    #[test]
    fn every_trace_of_a_change_is_seen() {
        let changes: [fn(&mut Metadata); 8] = [
            |file| file.size += 1,
            |file| file.mtime = at(-5),
            |file| file.ctime = at(-5),
            |file| file.inode += 1,
            |file| file.mode = 0o600,
            |file| file.uid = 0,
            |file| file.gid = 0,
            |file| file.kind = Kind::Fifo,
        ];
        for change in changes {
            let mut now = file();
            change(&mut now);
            assert!(!CleanBefore::new(at(1_000), false).trusts(&file(), &now), "{now:?}");
        }
    }

    #[test]
    fn a_file_changed_about_when_the_parent_read_it_is_read_again() {
        for (start, is_remote, trusted) in
            [(3, false, true), (2, false, false), (-9, false, false), (30, true, false), (61, true, true)]
        {
            let clean = CleanBefore::new(at(start), is_remote);
            assert_eq!(clean.trusts(&file(), &file()), trusted, "{start} {is_remote}");
        }
    }
}
