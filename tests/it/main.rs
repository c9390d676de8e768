//! The networks and the stages of the pipeline; and the structure of the repository itself.

use nephron_testing as support;

mod cascade;
mod checkpoint_folder;
mod crop;
mod ensemble;
mod import;
mod layering;
mod layering_of_ops;
mod lesions;
mod nnunet;
mod phantom;
mod phantom_readers;
mod phantom_truth;
mod pipeline;
mod resnet;
mod segmenters2d;
mod squeeze_excitation;
mod tiny_models;
mod training;
mod unet;
