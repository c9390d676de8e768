//! Training of the segmentation network, by nnU-Net's recipe, and of the subtype classifier ([`classification`]).
//!
//! [`data`] reads a data set in nnU-Net's layout, plans for it and prepares its cases; [`augment`] draws patches of them, and
//! [`BatchSource`] batches, each a function of the seed and its number alone. [`TrainableUNet`] is the network with its gradients,
//! [`Sgd`] the optimiser, and [`Training`] the loop, which can be interrupted and resumed bit for bit.

pub mod augment;
mod batch;
mod checkpoint;
pub mod classification;
pub mod data;
mod loss;
mod model;
mod network;
mod optimizer;
mod options;
mod record;
mod resnet;
mod run;
mod validate;

pub use batch::{Batch, BatchSource, Loader};
pub use loss::{deep_supervision, head_weights};
pub use network::{Gradients, Tape, TrainableUNet};
pub use optimizer::{Sgd, SgdOptions, polynomial};
pub use options::TrainOptions;
pub use record::EpochRecord;
pub use resnet::{ResNetTape, TrainableResNet};
pub use run::{Progress, TrainOutcome, TrainStage, Training};
pub use validate::validate;
