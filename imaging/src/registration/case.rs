//! A pair of masks on its way to a map.

use super::affine::{frame, index_map, parameters, world_map};
use super::descent::{self, Task};
use super::mask::Mask;
use super::model::Model;
use super::overlap::{Comparison, hard};
use super::{Channel, Outcome, Registration, RegistrationOptions, Space, Start};
use crate::volume::{Affine, Grid, Volume};
use nephron_compute::device::Device;
use nephron_compute::error::{Error, Result};
use nephron_compute::ops::affine_dice::{AffineDice, Channels, Minimum, Objective, Reason};

/// The learning rate on the full grid, relative to that on the thinned one: the map is a fraction of a voxel off there.
const FINE_RATE: f64 = 0.1;
/// And the window at most.
const FINE_WINDOW: usize = 20;
/// How far above its lowest the loss ends where it diverged. Steps of a learning rate in use move it by a tenth of
/// that.
const FAR: f64 = 0.25;

/// A pair between its steps.
pub(super) struct Case {
    /// In the space of the iterations.
    fixed: Mask,
    moving: Mask,
    /// The grids they came on.
    own: [Grid; 2],
    /// Thinned out.
    small: [Mask; 2],
    weights: Vec<f64>,
    start: Affine,
    /// The map so far, of the space of the iterations.
    map: Affine,
    /// Where the last iterations ended.
    minimum: Option<Minimum>,
    iterations: usize,
    /// Are there no iterations left for the full grids?
    cut: bool,
    warnings: Vec<String>,
}

/// What iterations need.
struct Ready {
    masks: AffineDice,
    model: Model,
    objective: Objective,
    /// What is odd about where they run.
    warning: Option<String>,
}

impl Case {
    pub(super) fn new(fixed: &Volume, moving: &Volume, options: &RegistrationOptions) -> Result<Self> {
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
        let mut small = [coarse(&fixed)?, coarse(&moving)?];
        let shared = |masks: &[Mask; 2]| -> Vec<bool> {
            (0..channels.count()).map(|c| masks.iter().all(|mask| mask.counts[c] > 0)).collect()
        };
        let mut there = shared(&small);
        let vanished = !there.contains(&true);
        if vanished {
            small = [fixed.clone(), moving.clone()];
            there = shared(&small);
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
        let (minimum, iterations, cut) = (None, 0, false);
        Ok(Self { fixed, moving, own, small, weights, start, map: start, minimum, iterations, cut, warnings })
    }

    /// The masks of the next iterations on the device and what they minimise: on the thinned masks, or where `fine` on
    /// the full ones. None where there is nothing left to do.
    fn ready(&mut self, device: &Device, options: &RegistrationOptions, fine: bool) -> Result<Option<Ready>> {
        let mut objective = Objective {
            smooth: options.smooth,
            weights: self.weights.clone(),
            learning_rate: options.learning_rate,
            max_iterations: options.max_iterations,
            window: options.window,
            tolerance: options.tolerance,
        };
        if !fine {
            let (masks, warning) = on_device(&self.small[0], &self.small[1], device, options)?;
            self.expect_overlap(&masks, options)?;
            let model = self.model([&self.small[0], &self.small[1]], options)?;
            return Ok(Some(Ready { masks, model, objective, warning }));
        }
        let thinned = self.fixed.grid != self.small[0].grid || self.moving.grid != self.small[1].grid;
        let left = options.max_iterations.saturating_sub(self.iterations);
        if !thinned || self.outcome() != Outcome::Converged {
            return Ok(None);
        }
        if left == 0 {
            self.cut = true;
            return Ok(None);
        }
        objective.learning_rate *= FINE_RATE;
        objective.max_iterations = left;
        objective.window = options.window.min(FINE_WINDOW);
        let (masks, warning) = on_device(&self.fixed, &self.moving, device, options)?;
        let model = self.model([&self.fixed, &self.moving], options)?;
        Ok(Some(Ready { masks, model, objective, warning }))
    }

    fn model(&self, [fixed, moving]: [&Mask; 2], options: &RegistrationOptions) -> Result<Model> {
        let RegistrationOptions { transformation, align_corners, .. } = *options;
        Model::new(transformation, [&fixed.grid, &moving.grid], &self.map, fixed.centre(), align_corners)
    }

    /// Border padding draws a mask that touches its grid's edge out to infinity: voxels must meet too.
    fn expect_overlap(&self, masks: &AffineDice, options: &RegistrationOptions) -> Result<()> {
        let matrix = index_map(&self.small[0].grid, &self.small[1].grid, &self.start)?;
        let shared: f64 = masks.sums(&matrix)?.0.iter().zip(&self.weights).map(|(c, w)| c.intersection * w).sum();
        // (On a device that only compiles the sums are no numbers, and go on.)
        let matrix = index_map(&self.fixed.grid, &self.moving.grid, &self.start)?;
        let [_, all] = hard(&self.fixed, &self.moving, &matrix)?;
        let apart = shared <= 0.0 || all <= 0.0;
        if !apart {
            return Ok(());
        }
        let how = match options.start {
            Start::CentreOfMass => {
                let (from, to) = (self.fixed.centre(), self.moving.centre());
                format!("with their centres of mass ({from:.1?} and {to:.1?} mm) on one another")
            }
            Start::Identity => "as the scans lie".to_owned(),
            Start::Given(_) => "under the given transform".to_owned(),
        };
        Err(Error::Data(format!("registration: the masks do not meet {how}; expected masks of the same organs")))
    }

    fn take(&mut self, ready: &Ready, minimum: Minimum, fine: bool) -> Result<()> {
        self.warn(ready.warning.as_ref());
        let [fixed, moving] =
            if fine { [&self.fixed, &self.moving] } else { [&self.small[0], &self.small[1]] }.map(|mask| &mask.grid);
        self.map = world_map(fixed, moving, &ready.model.chain.matrix(&minimum.parameters))?;
        self.iterations += minimum.iterations;
        self.minimum = Some(minimum);
        Ok(())
    }

    /// Says a thing once.
    fn warn(&mut self, warning: Option<&String>) {
        if let Some(warning) = warning.filter(|warning| !self.warnings.contains(warning)) {
            self.warnings.push(warning.clone());
        }
    }

    fn outcome(&self) -> Outcome {
        match &self.minimum {
            Some(minimum) if minimum.ends[1] - minimum.loss > FAR => Outcome::Diverged,
            Some(minimum) if minimum.reason == Reason::Converged && !self.cut => Outcome::Converged,
            _ => Outcome::Stopped,
        }
    }

    /// The map in the patient's space, and how good it is.
    pub(super) fn finish(mut self, options: &RegistrationOptions) -> Result<Registration> {
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
        let matrix = index_map(&self.fixed.grid, &self.moving.grid, &self.map)?;
        let theta = parameters(&frame(&self.fixed.grid, &self.moving.grid, options.align_corners), &matrix)?;
        let comparison = Comparison::new(&self.fixed, &self.moving)?;
        let channels = self.weights.iter().zip(&minimum.dice).enumerate();
        Ok(Registration {
            transformation: options.transformation,
            theta,
            align_corners: options.align_corners,
            transform: world_map(&self.own[0], &self.own[1], &matrix)?,
            identity: comparison.under(&Affine::IDENTITY)?,
            centre_of_mass: comparison.under(&self.fixed.onto(&self.moving))?,
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

/// Takes every case through the iterations on the thinned masks, or where `fine` on the full ones, all at once.
pub(super) fn descend(cases: &mut [Result<Case>], device: &Device, options: &RegistrationOptions, fine: bool) {
    let mut ready: Vec<(usize, Ready)> = Vec::new();
    for (i, slot) in cases.iter_mut().enumerate() {
        match slot.as_mut().map(|case| case.ready(device, options, fine)) {
            Ok(Ok(Some(own))) => ready.push((i, own)),
            Ok(Err(e)) => *slot = Err(e),
            Ok(Ok(None)) | Err(_) => {}
        }
    }
    let tasks: Vec<Task<'_>> =
        ready.iter().map(|(_, Ready { masks, model, objective, .. })| Task { masks, model, objective }).collect();
    let (minima, apart) = descent::minimise(&tasks);
    for ((i, own), minimum) in ready.iter().zip(minima) {
        let slot = &mut cases[*i];
        let taken = match slot {
            Ok(case) => minimum.and_then(|minimum| {
                case.warn(apart.as_ref());
                case.take(own, minimum, fine)
            }),
            Err(_) => Ok(()),
        };
        if let Err(e) = taken {
            *slot = Err(e);
        }
    }
}

/// On `device`, or on the CPU, with a warning, where a buffer of it could not hold these masks or their cells' codes.
fn on_device(
    fixed: &Mask,
    moving: &Mask,
    device: &Device,
    options: &RegistrationOptions,
) -> Result<(AffineDice, Option<String>)> {
    let bytes = (fixed.labels().len() as u64).max(cell_bytes(moving.grid.shape, &options.channels));
    let warning = too_large(bytes, device.max_buffer_bytes() / 2, &device.name());
    let device = if warning.is_none() { device } else { &Device::Cpu };
    let masks = AffineDice::new(&fixed.tensor(device)?, &moving.tensor(device)?, options.padding, &options.channels)?;
    Ok((masks, warning))
}

/// What is said where masks that need `bytes` have no `room` in a buffer of a device.
fn too_large(bytes: u64, room: u64, device: &str) -> Option<String> {
    (bytes >= room).then(|| {
        format!("registered on the CPU: the masks need {bytes} bytes in a buffer, expected below {room} on {device}")
    })
}

/// Bytes of the codes of a mask's cells on a GPU, where its labels reach every edge of [d, h, w].
pub(super) fn cell_bytes(shape: [usize; 3], channels: &Channels) -> u64 {
    let width = if channels.count() > 2 { 4 } else { 2 };
    shape.iter().fold(width, |bytes: u64, size| bytes.saturating_mul((*size as u64).saturating_add(1)))
}

/// What is said of a channel that is left out.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_go_to_the_cpu_where_a_buffer_cannot_hold_them() {
        assert_eq!(too_large(99, 100, "cuda:0"), None);
        let said = too_large(100, 100, "cuda:0").expect("no room");
        assert!(said.contains("on the CPU") && said.contains("100 bytes") && said.contains("cuda:0"), "{said}");
        // One more cell than voxels along each axis, two bytes each; four for more than two channels.
        let two = Channels::default();
        assert_eq!(cell_bytes([3, 4, 5], &two), 2 * 4 * 5 * 6);
        assert_eq!(cell_bytes([3, 4, 5], &"1/2/3".parse().expect("channels")), 4 * 4 * 5 * 6);
        assert_eq!(cell_bytes([usize::MAX; 3], &two), u64::MAX);
    }
}
