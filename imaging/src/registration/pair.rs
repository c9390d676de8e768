//! The state of one pair of masks during its registration.

use super::family::SearchSpace;
use super::frames::{frame, index_map, parameters, world_map};
use super::mask::Mask;
use super::overlap::{Comparison, Overlap, hard};
use super::{Channel, Outcome, Registration, RegistrationOptions, Space, Start};
use crate::volume::{Affine, Grid, Volume};
use nephron_compute::error::{Error, Result};
use nephron_compute::ops::affine_dice::{AffineDiceSums, Channels, Matrix};
use nephron_compute::ops::affine_dice_optimizer::{Minimum, Objective, StopReason};

/// The learning rate on the full grid, relative to that on the thinned one: there the transform is off by a fraction of a voxel
/// only.
const FULL_RATE: f64 = 0.1;
/// The longest window on the full grid.
const FULL_WINDOW: usize = 20;
/// The optimisation has diverged when the loss ends this far above its lowest value. With usual learning rates a step changes the
/// loss by a tenth of that.
const DIVERGENCE: f64 = 0.25;

/// The resolution of the masks on which iterations run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// Voxels of at least the resolution of the options; the full grids where the options have none.
    Thinned,
    /// The grids of the masks as they were given.
    Full,
}

/// A pair of masks and what has been found out about it so far.
#[derive(Debug)]
pub(super) struct Pair {
    /// The masks, fixed and moving, in the space of the iterations.
    full: [Mask; 2],
    /// The grids of the masks as they were given.
    own: [Grid; 2],
    /// The masks at [`Level::Thinned`].
    thinned: [Mask; 2],
    /// The weight of each channel in the loss: 0 where a mask has no voxel of it.
    pub weights: Vec<f64>,
    start: Affine,
    /// The transform so far, in the space of the iterations.
    map: Affine,
    /// The result of the last iterations.
    minimum: Option<Minimum>,
    iterations: usize,
    /// Whether no iterations were left for the full grids.
    cut: bool,
    /// One line for each condition that the caller should know of and that does not prevent a result.
    pub warnings: Vec<String>,
}

impl Pair {
    /// The state before the first iteration: the masks on both levels, the start, and the weights of the channels of which both
    /// masks have voxels.
    pub fn new(fixed: &Volume, moving: &Volume, options: &RegistrationOptions) -> Result<Self> {
        let channels = &options.channels;
        let (mut fixed, mut moving) = (Mask::new("fixed", fixed, channels)?, Mask::new("moving", moving, channels)?);
        let own = [fixed.grid, moving.grid];
        if options.space == Space::Grid {
            let frame = frame(&fixed.grid, &moving.grid, options.align_corners);
            fixed.grid.affine = Affine(frame.input.matrix());
            moving.grid.affine = Affine(frame.output.matrix()).inverse()?;
        }
        let start = options.start.map(&fixed, &moving);
        let coarse = |mask: &Mask| options.resolution.map_or_else(|| Ok(mask.clone()), |mm| mask.coarse(mm));
        let mut thinned = [coarse(&fixed)?, coarse(&moving)?];
        let shared = |masks: &[Mask; 2]| -> Vec<bool> {
            (0..channels.count()).map(|c| masks.iter().all(|mask| mask.counts[c] > 0)).collect()
        };
        let mut present = shared(&thinned);
        let vanished = !present.contains(&true);
        if vanished {
            thinned = [fixed.clone(), moving.clone()];
            present = shared(&thinned);
        }
        let left = present.iter().filter(|present| **present).count();
        if left == 0 {
            let [a, b] = [&fixed, &moving].map(|mask| format!("{:?}", &mask.counts[..channels.count()]));
            return Err(Error::Data(format!(
                "registration: expected a channel of {channels} that both masks have voxels of, found {a} and {b} voxels"
            )));
        }
        let weights = present.iter().map(|present| if *present { 1.0 / left as f64 } else { 0.0 }).collect();
        let missing = (0..channels.count()).filter(|&c| !present[c]);
        let mut warnings: Vec<String> = missing.map(|c| without(c, channels, [&fixed, &moving])).collect();
        for (which, mask) in [("fixed", &fixed), ("moving", &moving)] {
            warnings.extend(mask.cut_faces().map(|faces| {
                format!(
                    "the {which} mask reaches the edge of its field of view ({faces}): the organ may be cut off there, which \
                     shifts centres of mass and the alignment"
                )
            }));
        }
        if vanished {
            warnings
                .push("at the resolution of the first iterations no channel is left in both masks: all iterations run on the full grids".into());
        }
        Ok(Self {
            full: [fixed, moving],
            own,
            thinned,
            weights,
            start,
            map: start,
            minimum: None,
            iterations: 0,
            cut: false,
            warnings,
        })
    }

    /// The masks, fixed and moving, of a level.
    pub fn masks(&self, level: Level) -> [&Mask; 2] {
        match level {
            Level::Thinned => self.thinned.each_ref(),
            Level::Full => self.full.each_ref(),
        }
    }

    fn grids(&self, level: Level) -> [&Grid; 2] {
        self.masks(level).map(|mask| &mask.grid)
    }

    /// The objective on a level. None where no iterations are to be done on it.
    pub fn objective(&mut self, options: &RegistrationOptions, level: Level) -> Option<Objective> {
        let mut objective = options.objective(self.weights.clone());
        if level == Level::Thinned {
            return Some(objective);
        }
        let left = options.max_iterations.saturating_sub(self.iterations);
        if self.grids(Level::Full) == self.grids(Level::Thinned) || self.outcome() != Outcome::Converged {
            return None;
        }
        if left == 0 {
            self.cut = true;
            return None;
        }
        objective.learning_rate *= FULL_RATE;
        objective.max_iterations = left;
        objective.window = options.window.min(FULL_WINDOW);
        Some(objective)
    }

    /// The transforms to search on a level, starting at the transform so far.
    pub fn search_space(&self, options: &RegistrationOptions, level: Level) -> Result<SearchSpace> {
        let RegistrationOptions { transformation, align_corners, .. } = *options;
        let [fixed, _] = self.masks(level);
        SearchSpace::new(transformation, self.grids(level), &self.map, fixed.centre(), align_corners)
    }

    /// The transform so far, as a map from index to index of the thinned masks.
    pub fn index_map(&self) -> Result<Matrix> {
        let [fixed, moving] = self.grids(Level::Thinned);
        index_map(fixed, moving, &self.map)
    }

    /// The map of the patient's space that belongs to a map from index to index of the full grids, whatever the space of the
    /// iterations is.
    pub fn world_map(&self, matrix: &Matrix) -> Result<Affine> {
        world_map(&self.own[0], &self.own[1], matrix)
    }

    /// Checks that the masks overlap at the start; `sums` are the Dice sums of the thinned masks there. Border padding extends a
    /// mask that touches the edge of its grid without limit, so that the voxels themselves must overlap too.
    ///
    /// # Errors
    /// [`Error::Data`] for masks that do not overlap.
    pub fn ensure_overlap(&self, sums: &AffineDiceSums, options: &RegistrationOptions) -> Result<()> {
        let shared: f64 = sums.0.iter().zip(&self.weights).map(|(c, w)| c.intersection * w).sum();
        // On a device that only compiles kernels the sums are NaN, which counts as an overlap.
        let [fixed, moving] = &self.full;
        let matrix = index_map(&fixed.grid, &moving.grid, &self.start)?;
        let [_, all] = hard(fixed, moving, &matrix)?;
        let apart = shared <= 0.0 || all <= 0.0;
        if !apart {
            return Ok(());
        }
        let how = match options.start {
            Start::CentreOfMass => {
                let (from, to) = (fixed.centre(), moving.centre());
                format!("with their centres of mass ({from:.1?} and {to:.1?} mm) on one another")
            }
            Start::Identity => "as the scans lie".to_owned(),
            Start::Given(_) => "under the given transform".to_owned(),
        };
        Err(Error::Data(format!("registration: the masks do not overlap {how}; expected masks of the same organs")))
    }

    /// Takes over the result of the iterations of a level.
    pub fn take(&mut self, space: &SearchSpace, minimum: Minimum, level: Level) -> Result<()> {
        let [fixed, moving] = self.grids(level);
        self.map = world_map(fixed, moving, &space.parametrization.matrix(&minimum.parameters))?;
        self.iterations += minimum.iterations;
        self.minimum = Some(minimum);
        Ok(())
    }

    /// Adds a warning unless the pair already has it.
    pub fn warn(&mut self, warning: Option<&String>) {
        if let Some(warning) = warning.filter(|warning| !self.warnings.contains(warning)) {
            self.warnings.push(warning.clone());
        }
    }

    fn outcome(&self) -> Outcome {
        match &self.minimum {
            Some(minimum) if minimum.ends[1] - minimum.loss > DIVERGENCE => Outcome::Diverged,
            Some(minimum) if minimum.reason == StopReason::Converged && !self.cut => Outcome::Converged,
            _ => Outcome::Stopped,
        }
    }

    /// The result: the transform in the patient's space and the overlap under it.
    pub fn finish(mut self, options: &RegistrationOptions) -> Result<Registration> {
        let outcome = self.outcome();
        let Some(minimum) = self.minimum.take() else {
            return Err(Error::Data("registration: expected iterations, found none".into()));
        };
        match outcome {
            Outcome::Converged => {}
            Outcome::Stopped if self.cut => self.warnings.push(format!(
                "all of {} iterations were used at the coarse resolution: none was left for the full grids",
                self.iterations
            )),
            Outcome::Stopped => self.warnings.push(format!(
                "the loss was still falling by {:e} or more in {} iterations when iteration {} was reached",
                options.tolerance, options.window, self.iterations
            )),
            Outcome::Diverged => self.warnings.push(format!(
                "the optimisation diverged: the loss fell from {:.4} to {:.4} and ended at {:.4} after {} iterations; the transform of the \
                 lowest loss is kept, a lower learning rate than {} may do better",
                minimum.ends[0], minimum.loss, minimum.ends[1], self.iterations, options.learning_rate
            )),
        }
        let volume = self.map.determinant();
        if volume <= 0.0 && self.start.determinant() > 0.0 {
            return Err(Error::Data(format!(
                "registration: the transform mirrors space (determinant {volume:.3}); expected one above 0: the \
                 masks are too different, or the learning rate of {} is too high",
                options.learning_rate
            )));
        }
        if !(0.5..2.0).contains(&volume.abs()) {
            self.warnings.push(format!("the transform changes volumes by a factor of {volume:.2}, expected 0.5 to 2"));
        }
        let [fixed, moving] = &self.full;
        let matrix = index_map(&fixed.grid, &moving.grid, &self.map)?;
        let theta = parameters(&frame(&fixed.grid, &moving.grid, options.align_corners), &matrix)?;
        let comparison = Comparison::new(fixed, moving)?;
        let channels = self.weights.iter().zip(&minimum.dice).enumerate();
        let aligned = comparison.under(&self.map)?;
        self.warnings.extend(little_overlap(&aligned));
        Ok(Registration {
            transformation: options.transformation,
            theta,
            align_corners: options.align_corners,
            transform: self.world_map(&matrix)?,
            identity: comparison.under(&Affine::IDENTITY)?,
            centre_of_mass: comparison.under(&fixed.onto(moving))?,
            aligned,
            loss: minimum.loss,
            channels: channels
                .map(|(c, (&weight, &dice))| Channel { labels: options.channels.labels(c), weight, dice })
                .collect(),
            iterations: self.iterations,
            converged: outcome == Outcome::Converged,
            outcome,
            seconds: 0.0,
            warnings: self.warnings,
        })
    }
}

/// Hard Dice below which aligned masks are not taken to show the same organs in the same pose.
const MIN_KIDNEY_DICE: f64 = 0.7;
const MIN_TUMOUR_DICE: f64 = 0.3;

/// The warning that the masks do not match although the iterations ended well: the optimiser finds the nearest minimum, not a
/// turn of the patient.
fn little_overlap(aligned: &Overlap) -> Option<String> {
    let kidney = aligned.kidney.hard;
    let tumour = aligned.tumour.map(|dice| dice.hard);
    if kidney >= MIN_KIDNEY_DICE && tumour.is_none_or(|dice| dice >= MIN_TUMOUR_DICE) {
        return None;
    }
    let tumour = tumour.map_or(String::new(), |dice| format!(", tumour {dice:.2}"));
    Some(format!(
        "the aligned masks match badly (hard Dice of the kidney {kidney:.2}{tumour}): is the patient turned, or are other organs \
         labelled? A start near the truth may help"
    ))
}

/// The warning that a channel is left out.
fn without(channel: usize, channels: &Channels, [fixed, moving]: [&Mask; 2]) -> String {
    let who = match (fixed.counts[channel] > 0, moving.counts[channel] > 0) {
        (false, false) => "neither mask has",
        (false, true) => "the fixed mask does not have",
        (true, false) => "the moving mask does not have",
        (true, true) => "at this resolution a mask does not have",
    };
    if *channels == Channels::default() {
        return format!("{who} a tumour (label 2): aligned by kidney and tumour together only");
    }
    format!("{who} voxels of channel {:?}: aligned by the other channels of {channels} only", channels.labels(channel))
}
