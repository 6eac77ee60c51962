//! The base of the stores that tests put round a store: one says only what is different, and all else is passed on.

use std::ops::Range;

use bkp::id::ObjectId;
use bkp::store::{FileKind, Key, Listed, Store, StoreError};
use bytes::Bytes;
use chrono::{DateTime, Utc};

/// A [`Wrapper`] as the store that it is.
pub(crate) struct Wrapped<W>(pub(crate) W);

/// Writes each operation down once, for the trait that passes it on and for the store that asks the trait.
macro_rules! passed_on {
    ($(async fn $name:ident(&self $(, $argument:ident: $type:ty)*) -> $value:ty;)*) => {
        /// What a store does otherwise than the one inside it.
        #[async_trait::async_trait]
        pub(crate) trait Wrapper: Send + Sync {
            fn inner(&self) -> &dyn Store;

            $(async fn $name(&self $(, $argument: $type)*) -> Result<$value, StoreError> {
                self.inner().$name($($argument),*).await
            })*
        }

        #[async_trait::async_trait]
        impl<W: Wrapper> Store for Wrapped<W> {
            fn location(&self) -> String {
                self.0.inner().location()
            }

            $(async fn $name(&self $(, $argument: $type)*) -> Result<$value, StoreError> {
                self.0.$name($($argument),*).await
            })*
        }
    };
}

passed_on! {
    async fn put(&self, key: &Key, bytes: Bytes) -> ();
    async fn get(&self, key: &Key) -> Bytes;
    async fn hash(&self, key: &Key) -> ObjectId;
    async fn get_range(&self, key: &Key, range: Range<u64>) -> Bytes;
    async fn list(&self, kind: FileKind) -> Vec<Listed>;
    async fn size(&self, key: &Key) -> Option<u64>;
    async fn delete(&self, key: &Key) -> ();
    async fn immutable_until(&self, key: &Key) -> Option<DateTime<Utc>>;
    async fn keep_immutable(&self, key: &Key, least: DateTime<Utc>, until: DateTime<Utc>) -> DateTime<Utc>;
}
