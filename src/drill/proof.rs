//! What a proof compares beside a drill: every restored file with the snapshot, byte by byte.

use std::sync::Arc;
use std::time::Instant;

use crate::drill::{DrillError, RESTORE_THREADS, RecoveredTree, Rehearsal, checks};
use crate::repository::Repository;
use crate::restore::RestoreError;
use crate::restore::files;

impl Rehearsal<'_> {
    /// Reads every restored file back and compares it with the snapshot.
    pub(super) async fn compare_trees(
        &mut self,
        repository: &Arc<Repository>,
        trees: Vec<RecoveredTree>,
    ) -> Result<(), DrillError> {
        for RecoveredTree { source, plan } in trees {
            self.run.check()?;
            let began = Instant::now();
            let (repository, run) = (repository.clone(), self.run.clone());
            let compared = tokio::task::spawn_blocking(move || {
                let options = &plan.options;
                files::compare(&repository, &plan.place, &options.selection, &options.target, RESTORE_THREADS, &run)
            });
            let mut compared =
                compared.await.map_err(|error| DrillError::Thread(error.to_string()))?.map_err(RestoreError::from)?;
            // The directory was empty: beside what was restored there is the mark of a file that failed, which is told already.
            compared.leave_out_extra();
            self.phase("compare", began, |phase| {
                phase.files = Some(compared.files);
                phase.detail = Some(source.clone());
            });
            self.outcome.checks.push(checks::content(&source, &compared, began.elapsed()));
        }
        Ok(())
    }
}
