//! What a session is told of a file of events: see [`crate::fuzz`].

use crate::mysql::manifest::Product;
use crate::replay::session::dialect::Dialect;
use crate::replay::session::parcel::{Parcel, Work};
use crate::replay::session::walk;

/// The target knows every collation that a server has a number for.
const COLLATIONS: u32 = 2048;
const CHARSET: &str = "utf8mb4";
const COLLATION: &str = "utf8mb4_unicode_ci";

/// Returns how many parcels the events of a file make. Statements of bkp's own are text, whatever stood in the events.
pub(in crate::replay) fn parcels(product: Product, file: &[u8]) -> usize {
    let mut count = 0;
    let mut out = |Parcel { work, .. }: Parcel| {
        if let Work::Own(text) = work {
            assert!(std::str::from_utf8(&text).is_ok(), "a statement of ours is no text");
        }
        count += 1;
        Ok(())
    };
    let mut dialect = Dialect::plain(product);
    dialect.collations = (1..COLLATIONS).map(|number| (number, (CHARSET.to_owned(), COLLATION.to_owned()))).collect();
    walk::write_file(file, &dialect, &mut out);
    count
}
