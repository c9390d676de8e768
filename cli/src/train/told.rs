//! What `nephron train segmentation` says while it runs.

use crate::error::Result;
use crate::progress::Progress;
use nephron::training::{EpochRecord, TrainOptions, TrainStage, Training};

/// What is said of a training under way.
pub(super) struct Told<'a> {
    pub(super) progress: &'a Progress,
    pub(super) training: &'a Training<'a>,
    /// Whether epochs are not printed.
    pub(super) silent: bool,
    /// Steps of the first epoch that an earlier run did; None before the first step. The time left is estimated without them.
    pub(super) skipped: Option<u64>,
    /// Whether all lines were printed: the training goes on without them.
    pub(super) printed: Result<()>,
}

impl Told<'_> {
    pub(super) fn tell(&mut self, stage: TrainStage<'_>) {
        match stage {
            TrainStage::Preparing(done, all) => self.progress.step("preparing", done, all),
            TrainStage::Step(done, ..) => self.step(done),
            TrainStage::Validating(done, all) => self.progress.step("validating", done, all),
            TrainStage::Epoch(record) => {
                // What follows is another epoch, of which no step is done.
                self.skipped = Some(0);
                self.progress.stage("writing the checkpoint");
                if !self.silent && self.printed.is_ok() {
                    self.printed = self.progress.suspend(|| self.epoch(record));
                }
            }
        }
    }

    /// The step after which `done` steps of all epochs are done.
    fn step(&mut self, done: u64) {
        let TrainOptions { epochs, iterations, .. } = self.training.options;
        let (epoch, within) = ((done - 1) / iterations, (done - 1) % iterations + 1);
        let skipped = *self.skipped.get_or_insert(within - 1);
        let fold = self.training.fold.map_or("fold all".to_owned(), |fold| format!("fold {fold}"));
        self.progress.input("epoch", (epoch as usize + 1, epochs as usize), &fold);
        self.progress.step("training", (within - skipped) as usize, (iterations - skipped) as usize);
    }

    fn epoch(&self, record: &EpochRecord) -> Result<()> {
        let targets = self.training.dataset.labels().targets();
        let each = targets.iter().zip(record.dice.iter().flatten());
        let dice: String = each.map(|(target, dice)| format!(", {} {dice:.3}", target.name)).collect();
        let EpochRecord { epoch, loss, seconds, idle, .. } = record;
        let idle = 100.0 * idle;
        say!("epoch {epoch}: loss {loss:.4}{dice}, {seconds:.1} s, {idle:.0} % of it waiting for batches")
    }
}
