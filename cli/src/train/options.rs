//! Options of `nephron train segmentation` for plan and recipe, and how options of `nephron train` are read.

use std::time::Duration;

use crate::options::list;
use nephron::training::augment::Augmentation;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Plan")]
pub(super) struct PlannerArgs {
    /// GPU memory to plan for, in GB as nnU-Net counts it
    #[arg(long, value_name = "GB", value_parser = parse_above_zero)]
    pub(super) memory: Option<f64>,
    /// Channels of the first stage
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) features: Option<u16>,
    /// Patch in voxels along the network's axes, the coarsest first; rounded up to what the strides divide
    #[arg(long, value_name = "Z,Y,X", value_parser = parse_sizes)]
    pub(super) patch: Option<[usize; 3]>,
    /// Patches of a batch
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(super) batch: Option<u16>,
    /// Voxel size in mm along z,y,x of the image
    #[arg(long, value_name = "Z,Y,X", value_parser = parse_spacing)]
    pub(super) spacing: Option<[f64; 3]>,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Recipe")]
pub(super) struct RecipeArgs {
    /// Number of epochs, over which the learning rate falls to 0
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=16_777_216))]
    pub(super) epochs: u64,
    /// Steps of an epoch
    #[arg(long, default_value_t = 250, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=16_777_216))]
    pub(super) iterations: u64,
    /// Epochs between validations, besides the one at the end; 0 for that one alone
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub(super) validate_every: u64,
    /// Seed of weights and batches
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(super) seed: u64,
    /// Learning rate of the first epoch
    #[arg(long, default_value_t = 0.01, value_name = "RATE", value_parser = parse_above_zero)]
    pub(super) learning_rate: f64,
    /// What is done to patches
    #[arg(long, value_enum, default_value_t = Augment::Full)]
    pub(super) augmentation: Augment,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(super) enum Augment {
    /// All of nnU-Net's
    Full,
    /// Mirroring alone
    Mirror,
    /// Nothing
    None,
}

impl From<Augment> for Augmentation {
    fn from(augment: Augment) -> Self {
        match augment {
            Augment::Full => Self::Full,
            Augment::Mirror => Self::Mirror,
            Augment::None => Self::None,
        }
    }
}

/// A number, or None for `all`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fold(pub(super) Option<usize>);

pub(super) fn parse_fold(text: &str) -> Result<Fold, String> {
    match text {
        "all" => Ok(Fold(None)),
        _ => text.parse().map(|fold| Fold(Some(fold))).map_err(|_| "expected 0, 1, ... or all".into()),
    }
}

pub(super) fn parse_time(text: &str) -> Result<Duration, String> {
    let expected = || "expected a number with s, m or h, such as 45m".to_owned();
    let unit = text.chars().last().ok_or_else(expected)?;
    let seconds = match unit {
        's' => 1.0,
        'm' => 60.0,
        'h' => 3600.0,
        _ => return Err(expected()),
    };
    let number: f64 = text[..text.len() - unit.len_utf8()].trim().parse().map_err(|_| expected())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|_| expected())
}

pub(super) fn parse_above_zero(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err("expected a finite number above 0".into()),
    }
}

fn parse_sizes(text: &str) -> Result<[usize; 3], String> {
    let sizes: [usize; 3] = list(text, "three whole numbers Z,Y,X")?;
    if sizes.iter().all(|size| (1..=4096).contains(size)) { Ok(sizes) } else { Err("expected 1 to 4096 voxels".into()) }
}

fn parse_spacing(text: &str) -> Result<[f64; 3], String> {
    let spacing: [f64; 3] = list(text, "three numbers Z,Y,X")?;
    if spacing.iter().all(|s| s.is_finite() && *s > 0.0) { Ok(spacing) } else { Err("expected mm above 0".into()) }
}
