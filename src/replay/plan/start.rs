//! Where a replay starts.

use crate::mysql::gtid::Executed;
use crate::mysql::manifest::{Manifest, Position, Product};
use crate::replay::ReplayError;
use crate::replay::feed::Feed;
use crate::replay::plan::is_head;
use crate::replay::segments::Segment;

/// Where a replay starts: the moment that a dump is true of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    pub product: Product,
    pub position: Position,
    /// What the server had executed (MySQL), or the last transaction of each domain (MariaDB).
    pub gtid: Option<String>,
    /// What was prepared before (XA) is there, too: a dump leaves it out, and a replica has it.
    pub has_prepared: bool,
    /// The segment was read and proved up to the position, where this had been executed: that is not done again.
    pub reached: Option<Executed>,
}

impl Start {
    /// Takes a dump's position.
    ///
    /// # Errors
    /// [`ReplayError::NoPosition`] where its server wrote no binlog.
    pub fn of(manifest: &Manifest) -> Result<Self, ReplayError> {
        let position = manifest.position.clone().ok_or(ReplayError::NoPosition)?;
        let (product, gtid) = (manifest.product, manifest.gtid.clone());
        Ok(Self { product, position, gtid, has_prepared: false, reached: None })
    }

    /// Starts at the beginning of a segment, before which this had been executed.
    ///
    /// # Errors
    /// [`ReplayError`] where the segment cannot be read.
    pub fn at_head(product: Product, segment: &Segment, before: &Executed) -> Result<Self, ReplayError> {
        let damaged = |error| ReplayError::Binlog { name: segment.name.clone(), error: Box::new(error) };
        let mut reader = Feed::open(segment)?;
        let mut offset = None;
        while let Some(event) = reader.next().map_err(damaged)? {
            if !is_head(event.header.kind) {
                offset = Some(event.offset);
                break;
            }
        }
        let offset = offset.unwrap_or_else(|| reader.offset());
        let position = Position { file: segment.name.clone(), offset };
        Ok(Self { product, position, gtid: Some(told(before)), has_prepared: true, reached: None })
    }

    /// Starts at a place up to which segments were read and proved, and where this had been executed.
    #[must_use]
    pub fn behind(position: Position, reached: Executed) -> Self {
        let gtid = Some(told(&reached));
        Self { product: reached.product(), position, gtid, has_prepared: true, reached: Some(reached) }
    }
}

/// Says what was executed as a dump does.
fn told(executed: &Executed) -> String {
    match executed {
        Executed::MySql(set) => set.to_string(),
        Executed::MariaDb(state) => state.position().to_string(),
    }
}
