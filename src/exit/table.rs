//! The one table from errors to exit codes. Every variant is matched, so that a new one does not compile until it has a code.

use crate::against::AgainstError;
use crate::backup::BackupError;
use crate::backup::files::BackupFilesError;
use crate::capture::CaptureError;
use crate::catalog::CatalogError;
use crate::copy::{CopyError, LedgerError};
use crate::drill::DrillError;
use crate::exit::{Exit, Failure};
use crate::export::ExportError;
use crate::find::FindError;
use crate::heal::HealError;
use crate::human;
use crate::install::InstallError;
use crate::keys::KeysError;
use crate::kit::KitError;
use crate::mysql::binlog::BinlogError;
use crate::mysql::server::ServerError;
use crate::place::PlaceError;
use crate::policy::PolicyError;
use crate::prune::PruneError;
use crate::replay::ReplayError;
use crate::report::ReportError;
use crate::repository::RepositoryError;
use crate::restore::RestoreError;
use crate::restore::files::RestoreFilesError;
use crate::restore::part::PartError;
use crate::restore::part::changes::ChangesError;
use crate::run::Stopped;
use crate::sandbox::SandboxError;
use crate::schedule::{LockError, StampError};
use crate::secret::SecretError;
use crate::source::files::FilesError;
use crate::source::mysql::MysqlSourceError;
use crate::standby::StandbyError;
use crate::store::StoreError;
use crate::target::mysql::{DumpReadError, LoadError};
use crate::verify::VerifyError;

/// What the envelope asks of each error: its code, and the next step.
trait Coded: std::error::Error {
    fn code(&self) -> Exit;
    fn next_step(&self) -> Option<String>;
}

macro_rules! coded {
    ($($error:ty: |$this:ident| $code:expr;)*) => {$(
        impl Coded for $error {
            fn code(&self) -> Exit {
                let $this = self;
                $code
            }

            fn next_step(&self) -> Option<String> {
                self.hint()
            }
        }

        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::from(&error)
            }
        }

        impl From<&$error> for Failure {
            fn from(error: &$error) -> Self {
                Self { exit: error.code(), message: human::chain(error), hint: error.next_step() }
            }
        }

        impl From<&$error> for Exit {
            fn from(error: &$error) -> Self {
                error.code()
            }
        }
    )*};
}

coded! {
    PolicyError: |_error| Exit::Usage;
    SecretError: |_error| Exit::Password;
    StampError: |_error| Exit::Failed;
    CatalogError: |_error| Exit::Failed;
    ReportError: |_error| Exit::Failed;
    InstallError: |error| match error {
        InstallError::Both { .. } | InstallError::Credential { .. } | InstallError::Path { .. } => Exit::Usage,
        InstallError::Foreign { .. }
        | InstallError::NoDirectory { .. }
        | InstallError::Io { .. }
        | InstallError::Command { .. } => Exit::Failed,
    };
    SandboxError: |error| match error {
        SandboxError::Stopped => Exit::Interrupted,
        _ => Exit::Failed,
    };
    LockError: |error| match error {
        LockError::Held { .. } => Exit::Locked,
        LockError::Io { .. } => Exit::Failed,
        LockError::Stopped(_) => Exit::Interrupted,
    };
    StoreError: |error| match error {
        StoreError::Missing { .. } | StoreError::Unreadable { .. } => Exit::Damaged,
        StoreError::Transient { .. }
        | StoreError::Busy { .. }
        | StoreError::Failed { .. }
        | StoreError::Full { .. }
        | StoreError::ReadOnly { .. } => Exit::Failed,
        StoreError::Denied { .. } => Exit::Password,
        StoreError::Protected { .. } => Exit::Protected,
        StoreError::Refused { .. } => Exit::Network,
    };
    RepositoryError: |error| match error {
        RepositoryError::NoRepository { .. } => Exit::NoRepository,
        RepositoryError::WrongPassword { .. } => Exit::Password,
        RepositoryError::Locked { .. } => Exit::Locked,
        RepositoryError::Damaged { .. }
        | RepositoryError::DamagedLock { .. }
        | RepositoryError::Unproved { .. }
        | RepositoryError::MissingBlob { .. } => Exit::Damaged,
        RepositoryError::AlreadyThere { .. }
        | RepositoryError::Version { .. }
        | RepositoryError::LockLost { .. }
        | RepositoryError::Refused { .. } => Exit::Failed,
        RepositoryError::Store(error) => error.code(),
        RepositoryError::Stopped(_) => Exit::Interrupted,
    };
    KeysError: |error| match error {
        KeysError::UnknownId(_)
        | KeysError::AmbiguousId(_)
        | KeysError::InUse { .. }
        | KeysError::Last { .. }
        | KeysError::Listed { .. } => Exit::Usage,
        KeysError::Repository(error) => error.code(),
        KeysError::Ledger(error) => error.code(),
    };
    KitError: |error| match error {
        KitError::NotEmpty(_)
        | KitError::Fewer { .. }
        | KitError::NoKit { .. }
        | KitError::NoPolicy { .. }
        | KitError::NoCopy(_)
        | KitError::Weak(_)
        | KitError::Foreign { .. }
        | KitError::Binary { .. } => Exit::Usage,
        KitError::BadList { .. } => Exit::Damaged,
        KitError::Io { .. } | KitError::Json(_) => Exit::Failed,
        KitError::Policy(error) => error.code(),
        KitError::Place(error) => error.code(),
        KitError::Repository(error) => error.code(),
        KitError::Catalog(error) => error.code(),
    };
    PruneError: |error| match error {
        PruneError::Repository(error) => error.code(),
        PruneError::Doubt(_) | PruneError::Damaged(_) => Exit::Damaged,
    };
    PlaceError: |error| match error {
        PlaceError::Password(_)
        | PlaceError::Credentials { .. }
        | PlaceError::KeyFile { .. }
        | PlaceError::WriteOnly(_) => Exit::Password,
        PlaceError::NoCopy(_) => Exit::Usage,
        PlaceError::NoDir { .. } => Exit::Failed,
        PlaceError::Copy { error, .. } => error.code(),
        PlaceError::Repository(error) => error.code(),
    };
    ServerError: |error| match error {
        error if error.is_network_refused() => Exit::Network,
        error if error.is_access_denied() => Exit::Password,
        _ => Exit::Failed,
    };
    FilesError: |error| match error {
        FilesError::Guard(_) => Exit::Guard,
        _ => Exit::Failed,
    };
    MysqlSourceError: |error| match error {
        error if error.is_network_refused() => Exit::Network,
        error if error.is_access_denied() => Exit::Password,
        error if error.is_stopped() => Exit::Interrupted,
        _ => Exit::Failed,
    };
    BackupFilesError: |error| match error {
        BackupFilesError::Source(error) => error.code(),
        BackupFilesError::Repository(error) => error.code(),
        BackupFilesError::Threads(_) => Exit::Failed,
        BackupFilesError::Stopped(_) => Exit::Interrupted,
    };
    BackupError: |error| match error {
        BackupError::Mysql(error) => error.code(),
        BackupError::Password(error) => error.code(),
        BackupError::Files(error) => error.code(),
        BackupError::SaveFiles(error) => error.code(),
        BackupError::Repository(error) => error.code(),
        BackupError::Manifest(..) => Exit::Damaged,
        BackupError::NoSource(_) => Exit::Usage,
        BackupError::Thread(_) => Exit::Failed,
        BackupError::Stopped(_) => Exit::Interrupted,
    };
    CaptureError: |error| match error {
        error if error.is_stop() => Exit::Interrupted,
        CaptureError::Password(error) => error.code(),
        CaptureError::Server(error) => error.code(),
        CaptureError::Repository(error) => error.code(),
        CaptureError::Held(_) => Exit::Locked,
        CaptureError::NotEmpty(_) | CaptureError::Nothing(_) | CaptureError::Foreign { .. } => Exit::Usage,
        CaptureError::Event { .. }
        | CaptureError::Hole { .. }
        | CaptureError::Chain { .. }
        | CaptureError::Gtid(_)
        | CaptureError::Lost { .. }
        | CaptureError::Rotten { .. }
        | CaptureError::Diverged { .. }
        | CaptureError::Damaged { .. } => Exit::Damaged,
        CaptureError::Ask { .. }
        | CaptureError::Stream(_)
        | CaptureError::NoBinlog
        | CaptureError::NoFile
        | CaptureError::Ended
        | CaptureError::OtherServer
        | CaptureError::SemiSyncCame
        | CaptureError::Spool { .. }
        | CaptureError::NoDir(_)
        | CaptureError::Thread(_)
        | CaptureError::Stopped(_) => Exit::Failed,
    };
    VerifyError: |error| match error {
        VerifyError::Repository(error) => error.code(),
        VerifyError::Work(_) => Exit::Failed,
    };
    LedgerError: |_error| Exit::Failed;
    HealError: |error| match error {
        HealError::Verify(error) => error.code(),
        HealError::Repository(error) => error.code(),
    };
    CopyError: |error| match error {
        CopyError::NoRepository { .. } => Exit::NoRepository,
        CopyError::AnotherRepository { .. } => Exit::Failed,
        CopyError::Store(error) => error.code(),
        CopyError::Lock { error, .. } | CopyError::Needs(error) => error.code(),
        CopyError::Ledger(_) => Exit::Failed,
        CopyError::Stopped(_) => Exit::Interrupted,
    };
    LoadError: |error| match error {
        LoadError::Server(error) => error.code(),
        LoadError::Dump(error) if error.is_damage() => Exit::Damaged,
        LoadError::Dump(_) => Exit::Failed,
        LoadError::OtherLoad { .. } | LoadError::Busy => Exit::Locked,
        LoadError::NotEmpty { .. }
        | LoadError::NotInDump { .. }
        | LoadError::NoSchema { .. }
        | LoadError::OwnSchema { .. }
        | LoadError::NameTwice { .. } => Exit::Usage,
        LoadError::Stopped => Exit::Interrupted,
        LoadError::GaveUp { source, .. } => source.code(),
        LoadError::Sql { .. }
        | LoadError::NoAnswer { .. }
        | LoadError::Account { .. }
        | LoadError::Rows { .. }
        | LoadError::Warnings { .. }
        | LoadError::RowCount { .. }
        | LoadError::LocalInfileOff
        | LoadError::DoesNotFit { .. }
        | LoadError::NamesCollide { .. }
        | LoadError::BrokeOff => Exit::Failed,
    };
    DumpReadError: |error| if error.is_damage() { Exit::Damaged } else { Exit::Failed };
    RestoreFilesError: |error| match error {
        RestoreFilesError::Repository(error) => error.code(),
        RestoreFilesError::Target(_) | RestoreFilesError::Compared(_) | RestoreFilesError::Threads(_) => Exit::Failed,
        RestoreFilesError::Selection(_) | RestoreFilesError::NotInSnapshot { .. } => Exit::Usage,
        RestoreFilesError::Stopped(_) => Exit::Interrupted,
    };
    ReplayError: |error| match error {
        ReplayError::Dir { .. }
        | ReplayError::NoSegment { .. }
        | ReplayError::NotCaptured { .. }
        | ReplayError::NoNumber { .. }
        | ReplayError::NoPosition
        | ReplayError::Gap { .. }
        | ReplayError::OtherServer { .. }
        | ReplayError::Beyond { .. }
        | ReplayError::NoSuchTransaction { .. }
        | ReplayError::NoBoundary { .. }
        | ReplayError::Split { .. }
        | ReplayError::Gtid(_)
        | ReplayError::Unfit { .. }
        | ReplayError::Unreplayable { .. }
        | ReplayError::Denied { .. } => Exit::Usage,
        ReplayError::Busy => Exit::Locked,
        ReplayError::Binlog { .. } => Exit::Damaged,
        ReplayError::Server(error) => error.code(),
        ReplayError::NoRoom { .. }
        | ReplayError::Open { .. }
        | ReplayError::Sql { .. }
        | ReplayError::Serve { .. }
        | ReplayError::Served(_)
        | ReplayError::Guard(_)
        | ReplayError::Follow { .. }
        | ReplayError::Insecure { .. }
        | ReplayError::Apply { .. }
        | ReplayError::StillApplying { .. }
        | ReplayError::Mismatch { .. }
        | ReplayError::Thread(_) => Exit::Failed,
        ReplayError::Stopped(_) => Exit::Interrupted,
    };
    RestoreError: |error| match error {
        RestoreError::NoSnapshot { .. }
        | RestoreError::UnknownId(_)
        | RestoreError::AmbiguousId(_)
        | RestoreError::Foreign(_)
        | RestoreError::Binlog(_)
        | RestoreError::OtherSource { .. }
        | RestoreError::Nothing(_)
        | RestoreError::NoServer(_)
        | RestoreError::NoDir(_)
        | RestoreError::ManyDatabases(..)
        | RestoreError::InPlace(_)
        | RestoreError::WrongHost { .. }
        | RestoreError::NoDumpBefore { .. }
        | RestoreError::NoBinlogs(_)
        | RestoreError::NoTime { .. }
        | RestoreError::PartialReplay(_)
        | RestoreError::LeftOut(_)
        | RestoreError::NoTable(_) => Exit::Usage,
        RestoreError::InReplay(_) | RestoreError::Standby(_) => Exit::Locked,
        RestoreError::Captured(error) => error.code(),
        RestoreError::Replay(error) => error.code(),
        RestoreError::Manifest(error) => error.code(),
        RestoreError::Load(error) => error.code(),
        RestoreError::ReadBack(error) => error.code(),
        RestoreError::Files(error) => error.code(),
        RestoreError::Repository(error) => error.code(),
        RestoreError::Thread(_) | RestoreError::Altered(_) => Exit::Failed,
        RestoreError::Stopped(_) => Exit::Interrupted,
    };
    PartError: |error| match error {
        PartError::NoPoint
        | PartError::Name(_)
        | PartError::NoTenant
        | PartError::OtherColumn { .. }
        | PartError::NoColumn { .. }
        | PartError::Value { .. }
        | PartError::NoParent { .. }
        | PartError::Doubt { .. }
        | PartError::NewKey { .. }
        | PartError::NotDumped { .. }
        | PartError::NotThere { .. } => Exit::Usage,
        PartError::Restore(error) | PartError::Follow(error) => error.code(),
        PartError::Sandbox(error) => error.code(),
        PartError::Server(error) => error.code(),
        PartError::Read(error) => error.code(),
        PartError::Changes(error) => error.code(),
        PartError::Dir { .. } | PartError::Sql { .. } => Exit::Failed,
    };
    ChangesError: |error| match error {
        ChangesError::Exists(_)
        | ChangesError::NotOurs { .. }
        | ChangesError::OtherPolicy { .. }
        | ChangesError::Unconfirmed(_)
        | ChangesError::OtherServer { .. } => Exit::Usage,
        ChangesError::Conflicts { .. } => Exit::Incomplete,
        ChangesError::Server(error) => error.code(),
        ChangesError::Read(error) => error.code(),
        ChangesError::File { .. }
        | ChangesError::Unread { .. }
        | ChangesError::Altered
        | ChangesError::Stale { .. }
        | ChangesError::Refused { .. }
        | ChangesError::Lost { .. }
        | ChangesError::Uncommitted(_)
        | ChangesError::Unknown(_)
        | ChangesError::Thread(_) => Exit::Failed,
        ChangesError::Stopped(_) => Exit::Interrupted,
    };
    StandbyError: |error| match error {
        StandbyError::NotCaptured(_)
        | StandbyError::NoGtids(_)
        | StandbyError::NoSpool { .. }
        | StandbyError::NoStandby
        | StandbyError::LongDelay { .. }
        | StandbyError::OtherProduct { .. }
        | StandbyError::OtherSource { .. }
        | StandbyError::Passed { .. } => Exit::Usage,
        StandbyError::Promoting => Exit::Locked,
        StandbyError::NotWhole(_) => Exit::Incomplete,
        StandbyError::Segment { .. } | StandbyError::Gtid(_) => Exit::Damaged,
        StandbyError::NoWay { .. }
        | StandbyError::Ended(_)
        | StandbyError::Lost(_)
        | StandbyError::Broken { .. }
        | StandbyError::NotNext(_)
        | StandbyError::Still { .. }
        | StandbyError::Io { .. }
        | StandbyError::Thread(_) => Exit::Failed,
        StandbyError::Capture(error) => error.code(),
        StandbyError::Replay(error) => error.code(),
        StandbyError::Restore(error) => error.code(),
        StandbyError::Repository(error) => error.code(),
        StandbyError::Place(error) => error.code(),
        StandbyError::Stopped(_) => Exit::Interrupted,
    };
    ExportError: |error| match error {
        ExportError::Restore(error) => error.code(),
        ExportError::Repository(error) => error.code(),
        ExportError::Dump(error) => error.code(),
        ExportError::NoDatabase(_)
        | ExportError::ManyDatabases { .. }
        | ExportError::NotDatabase(_)
        | ExportError::NotEmpty(_) => Exit::Usage,
        ExportError::Write { .. } | ExportError::Thread(_) => Exit::Failed,
        ExportError::Stopped(_) => Exit::Interrupted,
    };
    AgainstError: |error| match error {
        AgainstError::Choose(error) => error.code(),
        AgainstError::Read(error) => error.code(),
        AgainstError::Source(error) => error.code(),
        AgainstError::NoDatabase(_) | AgainstError::NotDatabase(_) => Exit::Usage,
    };
    FindError: |error| match error {
        FindError::List { .. } | FindError::Open { .. } => Exit::Failed,
        FindError::NoFile { .. } => Exit::Usage,
        FindError::Missing { .. } => Exit::Damaged,
        FindError::Read { error, .. } => error.code(),
        FindError::Stopped(_) => Exit::Interrupted,
    };
    BinlogError: |error| match error {
        BinlogError::Io { .. } => Exit::Failed,
        BinlogError::NoBinlog | BinlogError::Encrypted { .. } => Exit::Usage,
        BinlogError::Damaged { .. } | BinlogError::Malformed { .. } | BinlogError::TooLarge { .. } => Exit::Damaged,
    };
    DrillError: |error| match error {
        DrillError::WorkDir { .. } | DrillError::Thread(_) => Exit::Failed,
        DrillError::Sandbox(error) => error.code(),
        DrillError::Restore(error) => error.code(),
        DrillError::Load(error) => error.code(),
        DrillError::Repository(error) => error.code(),
        DrillError::Stopped(_) => Exit::Interrupted,
    };
}

impl From<Stopped> for Failure {
    fn from(stopped: Stopped) -> Self {
        Self::new(Exit::Interrupted, stopped.to_string())
    }
}
