//! A pair of masks on its way to a map.

use super::family::SearchSpace;
use super::frames::{frame, index_map, parameters, world_map};
use super::mask::Mask;
use super::overlap::{Comparison, hard};
use super::{Channel, Outcome, Registration, RegistrationOptions, Space, Start};
use crate::volume::{Affine, Grid, Volume};
use nephron_compute::error::{Error, Result};
use nephron_compute::ops::affine_dice::{AffineDiceSums, Channels, Matrix};
use nephron_compute::ops::affine_dice_optimizer::{Minimum, Objective, StopReason};

/// The learning rate on the full grid, relative to that on the thinned one: the map is a fraction of a voxel off there.
const FULL_RATE: f64 = 0.1;
/// The longest window on the full grid.
const FULL_WINDOW: usize = 20;
/// How far above its lowest the loss ends where it diverged. Steps of a learning rate in use move it by a tenth of
/// that.
const FAR: f64 = 0.25;

/// The masks that iterations run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// Voxels of at least the resolution of the options; the full grids where that is none.
    Thinned,
    /// The grids that the masks came on.
    Full,
}

/// A pair of masks between its iterations.
#[derive(Debug)]
pub(super) struct Pair {
    /// The masks, fixed and moving, in the space of the iterations.
    full: [Mask; 2],
    /// The grids they came on.
    own: [Grid; 2],
    /// The masks at [`Level::Thinned`].
    thinned: [Mask; 2],
    /// The weight of each channel in the loss: 0 where a mask has nothing of it.
    pub weights: Vec<f64>,
    start: Affine,
    /// The map so far, of the space of the iterations.
    map: Affine,
    /// Where the last iterations ended.
    minimum: Option<Minimum>,
    iterations: usize,
    /// Whether there are no iterations left for the full grids.
    cut: bool,
    /// One line for each thing that is odd but usable.
    pub warnings: Vec<String>,
}

impl Pair {
    /// The masks, their start and the channels that both have something of: everything that a pair and the options say
    /// before the first iteration.
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
        let mut there = shared(&thinned);
        let vanished = !there.contains(&true);
        if vanished {
            thinned = [fixed.clone(), moving.clone()];
            there = shared(&thinned);
        }
        let left = there.iter().filter(|there| **there).count();
        if left == 0 {
            let [a, b] = [&fixed, &moving].map(|mask| format!("{:?}", &mask.counts[..channels.count()]));
            return Err(Error::Data(format!(
                "registration: expected a channel of {channels} that both masks have voxels of, found {a} and {b} voxels"
            )));
        }
        let weights = there.iter().map(|there| if *there { 1.0 / left as f64 } else { 0.0 }).collect();
        let missing = (0..channels.count()).filter(|&c| !there[c]);
        let mut warnings: Vec<String> = missing.map(|c| without(c, channels, [&fixed, &moving])).collect();
        if vanished {
            warnings
                .push("thinned out, no channel is left in both masks: aligned on the full grids from the start".into());
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

    /// What the iterations of a level minimise. None where there is nothing left to do on it.
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

    /// The maps to choose from on a level, beginning at the map so far.
    pub fn search_space(&self, options: &RegistrationOptions, level: Level) -> Result<SearchSpace> {
        let RegistrationOptions { transformation, align_corners, .. } = *options;
        let [fixed, _] = self.masks(level);
        SearchSpace::new(transformation, self.grids(level), &self.map, fixed.centre(), align_corners)
    }

    /// The map so far, from index to index of the thinned masks.
    pub fn index_map(&self) -> Result<Matrix> {
        let [fixed, moving] = self.grids(Level::Thinned);
        index_map(fixed, moving, &self.map)
    }

    /// The map of the patient's space, whatever that of the iterations is, of an index map of the full grids.
    pub fn world_map(&self, matrix: &Matrix) -> Result<Affine> {
        world_map(&self.own[0], &self.own[1], matrix)
    }

    /// Refuses masks that do not meet at the start; `sums` are those of the thinned masks there. Border padding draws a
    /// mask that touches its grid's edge out to infinity: voxels must meet too.
    pub fn expect_overlap(&self, sums: &AffineDiceSums, options: &RegistrationOptions) -> Result<()> {
        let shared: f64 = sums.0.iter().zip(&self.weights).map(|(c, w)| c.intersection * w).sum();
        // (On a device that only compiles the sums are no numbers, and go on.)
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
        Err(Error::Data(format!("registration: the masks do not meet {how}; expected masks of the same organs")))
    }

    /// Moves on to where the iterations of a level ended.
    pub fn take(&mut self, space: &SearchSpace, minimum: Minimum, level: Level) -> Result<()> {
        let [fixed, moving] = self.grids(level);
        self.map = world_map(fixed, moving, &space.parametrization.matrix(&minimum.parameters))?;
        self.iterations += minimum.iterations;
        self.minimum = Some(minimum);
        Ok(())
    }

    /// Adds a warning that is not there yet.
    pub fn warn(&mut self, warning: Option<&String>) {
        if let Some(warning) = warning.filter(|warning| !self.warnings.contains(warning)) {
            self.warnings.push(warning.clone());
        }
    }

    fn outcome(&self) -> Outcome {
        match &self.minimum {
            Some(minimum) if minimum.ends[1] - minimum.loss > FAR => Outcome::Diverged,
            Some(minimum) if minimum.reason == StopReason::Converged && !self.cut => Outcome::Converged,
            _ => Outcome::Stopped,
        }
    }

    /// The map in the patient's space, and how good it is.
    pub fn finish(mut self, options: &RegistrationOptions) -> Result<Registration> {
        let outcome = self.outcome();
        let Some(minimum) = self.minimum.take() else {
            return Err(Error::Data("registration: expected iterations, found none".into()));
        };
        match outcome {
            Outcome::Converged => {}
            Outcome::Stopped if self.cut => self.warnings.push(format!(
                "all of {} iterations were spent on the thinned masks: none was left for the full grids",
                self.iterations
            )),
            Outcome::Stopped => self.warnings.push(format!(
                "the loss was still falling by {:e} or more every {} iterations after {}",
                options.tolerance, options.window, self.iterations
            )),
            Outcome::Diverged => self.warnings.push(format!(
                "the iterations diverged: the loss fell from {:.4} to {:.4} and ended at {:.4} after {}; the map of the \
                 lowest is kept, a learning rate below {} may do better",
                minimum.ends[0], minimum.loss, minimum.ends[1], self.iterations, options.learning_rate
            )),
        }
        let volume = self.map.determinant();
        if volume <= 0.0 && self.start.determinant() > 0.0 {
            return Err(Error::Data(format!(
                "registration: the map found turns space inside out (determinant {volume:.3}); expected one above 0: the \
                 masks are too unlike, or the learning rate of {} is too high",
                options.learning_rate
            )));
        }
        if !(0.5..2.0).contains(&volume.abs()) {
            self.warnings.push(format!("the map changes volumes by a factor of {volume:.2}, expected 0.5 to 2"));
        }
        let [fixed, moving] = &self.full;
        let matrix = index_map(&fixed.grid, &moving.grid, &self.map)?;
        let theta = parameters(&frame(&fixed.grid, &moving.grid, options.align_corners), &matrix)?;
        let comparison = Comparison::new(fixed, moving)?;
        let channels = self.weights.iter().zip(&minimum.dice).enumerate();
        Ok(Registration {
            transformation: options.transformation,
            theta,
            align_corners: options.align_corners,
            transform: self.world_map(&matrix)?,
            identity: comparison.under(&Affine::IDENTITY)?,
            centre_of_mass: comparison.under(&fixed.onto(moving))?,
            aligned: comparison.under(&self.map)?,
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

/// The warning that a channel is left out.
fn without(channel: usize, channels: &Channels, [fixed, moving]: [&Mask; 2]) -> String {
    let who = match (fixed.counts[channel] > 0, moving.counts[channel] > 0) {
        (false, false) => "neither mask has",
        (false, true) => "the fixed mask does not have",
        (true, false) => "the moving mask does not have",
        (true, true) => "at this resolution a mask does not have",
    };
    if *channels == Channels::default() {
        return format!("{who} a tumour (label 2): aligned by kidney and tumour together alone");
    }
    format!("{who} voxels of channel {:?}: aligned by the others of {channels} alone", channels.labels(channel))
}
