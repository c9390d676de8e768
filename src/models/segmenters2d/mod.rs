//! Segmenters of single slices: fully convolutional networks on a ResNet whose last stages are dilated instead of strided.
//!
//! | [`Head`] | Source | Output stride | Names of parameters |
//! |---|---|---|---|
//! | `Fcn` | Long et al., CVPR 2015; torchvision's `fcn_resnet50` and `fcn_resnet101` | 8 | torchvision's |
//! | `DeepLabV3` | Chen et al., arXiv:1706.05587; torchvision's `deeplabv3_resnet50` and `deeplabv3_resnet101` | 8 | torchvision's |
//! | `DeepLabV3Plus` | Chen et al., ECCV 2018 | 16 | [those below](#names-of-parameters) |
//! | `PspNet` | Zhao et al., CVPR 2017 | 8 | [those below](#names-of-parameters) |
//!
//! Images are [n, 3, 1, h, w] of any h and w: three neighbouring slices as channels. A network is features = backbone(image), small logits =
//! head(features), logits = small logits resized to h x w, bilinear with `align_corners = false`. The networks are for inference only:
//! every batch norm is folded into the convolution before it, and dropout is the identity. An auxiliary classifier in the file serves
//! training alone; it is accepted and listed by [`Segmenter2d::unused`].
//!
//! The backbone is torchvision's ResNet with `replace_stride_with_dilation`: [false, true, true] at output stride 8, [false, false, true] at
//! 16. Where dilation replaces the stride of a stage, its first block keeps the dilation before it and the others have twice that. There is
//! no multi-grid of dilations within a stage.
//!
//! # Names of parameters
//! `backbone.` stands before torchvision's names of a ResNet, without `fc`. A convolution without bias has the name of its batch norm with
//! the next number. Numbers count the layers of torchvision's `Sequential`, of which ReLU and dropout have no parameters.
//!
//! | head | names |
//! |---|---|
//! | `Fcn` | `classifier.{0, 1}` 3x3 to a quarter of the channels; `classifier.4` 1x1 with bias to the classes |
//! | `DeepLabV3` | `classifier.0.convs.0.{0, 1}` 1x1; `classifier.0.convs.{1, 2, 3}.{0, 1}` 3x3 of rates 12, 24, 36; `classifier.0.convs.4.{1, 2}` 1x1 of the global mean; `classifier.0.project.{0, 1}`; `classifier.{1, 2}` 3x3; `classifier.4` |
//! | `DeepLabV3Plus` | `classifier.aspp.` before the names of the pyramid of `DeepLabV3` (`convs`, `project`), of rates 6, 12, 18; `classifier.low_level.{0, 1}` 1x1 of layer1 to 48 channels; `classifier.decoder.{0, 1}`, `classifier.decoder.{3, 4}` 3x3; `classifier.decoder.6` |
//! | `PspNet` | `classifier.stages.{0, 1, 2, 3}.{1, 2}` 1x1 of the means of 1, 2, 3 and 6 bins; `classifier.project.{0, 1}` 3x3; `classifier.project.4` |

mod aspp;
mod backbone;
mod deeplab;
mod fcn;
mod pspnet;
mod slices;

use std::fmt;
use std::path::Path;

use tracing::debug_span;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::io::weights::Weights;
use crate::models::folded::{Conv, Reader};
use crate::ops::span::{self, OpSpan};
use crate::ops::{self, ConvEpilogue, InterpolateMode};
use crate::tensor::{DType, Tensor};
use backbone::{Backbone, Features};

/// What stands on the backbone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Head {
    /// Two convolutions.
    Fcn,
    /// A pyramid of dilated convolutions.
    DeepLabV3,
    /// That pyramid, and a decoder that reads features of a quarter of the image's size.
    DeepLabV3Plus,
    /// A pyramid of means over 1, 2, 3 and 6 bins along each axis.
    PspNet,
}

impl Head {
    /// Every head.
    pub const ALL: [Self; 4] = [Self::Fcn, Self::DeepLabV3, Self::DeepLabV3Plus, Self::PspNet];
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fcn => "FCN",
            Self::DeepLabV3 => "DeepLabV3",
            Self::DeepLabV3Plus => "DeepLabV3+",
            Self::PspNet => "PSPNet",
        })
    }
}

/// A segmenter's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Architecture {
    /// What stands on the backbone.
    pub head: Head,
    /// The depth of the backbone: 50 or 101.
    pub depth: usize,
    /// Number of classes, the background included: 1 to 256, so that labels are u8.
    pub classes: usize,
}

impl Architecture {
    /// Checks depth and classes.
    ///
    /// # Errors
    /// [`Error::Argument`] for a depth other than 50 and 101, and for no classes or more than 256.
    pub fn ensure_valid(&self) -> Result<()> {
        if !matches!(self.depth, 50 | 101) {
            return Err(Error::argument("2D segmenter: depth", "50 or 101", self.depth));
        }
        if !(1..=256).contains(&self.classes) {
            return Err(Error::argument("2D segmenter: classes", "1 to 256", self.classes));
        }
        Ok(())
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on ResNet-{} with {} classes", self.head, self.depth, self.classes)
    }
}

/// A head with its weights.
enum HeadLayers {
    Fcn(fcn::Fcn),
    DeepLabV3(Box<deeplab::DeepLabV3>),
    DeepLabV3Plus(Box<deeplab::DeepLabV3Plus>),
    PspNet(pspnet::PspNet),
}

impl HeadLayers {
    fn read(reader: &Reader<'_>, architecture: &Architecture, features: Channels) -> Result<Self> {
        let classes = architecture.classes;
        Ok(match architecture.head {
            Head::Fcn => Self::Fcn(fcn::Fcn::read(reader, features, classes)?),
            Head::DeepLabV3 => Self::DeepLabV3(Box::new(deeplab::DeepLabV3::read(reader, features, classes)?)),
            Head::DeepLabV3Plus => {
                Self::DeepLabV3Plus(Box::new(deeplab::DeepLabV3Plus::read(reader, features, classes)?))
            }
            Head::PspNet => Self::PspNet(pspnet::PspNet::read(reader, features, classes)?),
        })
    }

    fn forward(&self, features: &Features) -> Result<Tensor> {
        match self {
            Self::Fcn(head) => head.forward(features),
            Self::DeepLabV3(head) => head.forward(features),
            Self::DeepLabV3Plus(head) => head.forward(features),
            Self::PspNet(head) => head.forward(features),
        }
    }
}

/// Number of channels of the features that heads read.
#[derive(Debug, Clone, Copy)]
struct Channels {
    low: usize,
    high: usize,
}

/// A network on a device, ready for inference.
///
/// ```no_run
/// use nephron::io::nifti;
/// use nephron::models::segmenters2d::{Architecture, Head, Segmenter2d};
/// use nephron::{DType, Device};
///
/// let architecture = Architecture { head: Head::DeepLabV3, depth: 101, classes: 3 };
/// let segmenter = Segmenter2d::load("deeplab.safetensors", &architecture, &Device::auto(), DType::F32)?;
/// let normalised = nifti::read("normalised.nii.gz")?; // as the network was trained
/// let labels = segmenter.labels(&normalised.volume)?;
/// # Ok::<(), nephron::Error>(())
/// ```
pub struct Segmenter2d {
    device: Device,
    dtype: DType,
    backbone: Backbone,
    head: HeadLayers,
    unused: Vec<String>,
}

impl Segmenter2d {
    /// The network of a file, safetensors or a checkpoint of `torch.save`: see [`Segmenter2d::new`].
    ///
    /// # Errors
    /// As [`Weights::read`] and [`Segmenter2d::new`].
    pub fn load(path: impl AsRef<Path>, architecture: &Architecture, device: &Device, dtype: DType) -> Result<Self> {
        architecture.ensure_valid()?;
        Self::new(architecture, &Weights::read(path)?, device, dtype)
    }

    /// A network of weights under [these names](self#names-of-parameters), which are stored on `device` as `dtype` with batch norms folded
    /// in.
    ///
    /// # Errors
    /// [`Error::File`] for a parameter that is missing or has another shape, and for one that this network does not use and that is
    /// not of an auxiliary classifier, by its name; as [`Architecture::ensure_valid`]; a device that cannot store `dtype` or fails.
    pub fn new(architecture: &Architecture, weights: &Weights, device: &Device, dtype: DType) -> Result<Self> {
        architecture.ensure_valid()?;
        let reader = Reader::new(weights, device, dtype, "backbone.");
        let backbone = Backbone::read(&reader, architecture)?;
        let reader = reader.under("classifier.");
        let head = HeadLayers::read(&reader, architecture, backbone.channels())?;
        let unused = reader.rest(&architecture.to_string(), Some("aux_classifier."))?;
        Ok(Self { device: device.clone(), dtype, backbone, head, unused })
    }

    /// The names of the parameters in the file that inference does not use: those of an auxiliary classifier, in alphabetical order.
    pub fn unused(&self) -> &[String] {
        &self.unused
    }

    /// The logits [n, classes, 1, h, w] of images [n, 3, 1, h, w] of the network's type, before softmax.
    ///
    /// # Errors
    /// [`Error::Shape`] for images of another shape or without voxels; images of another type or on another device; a device that fails.
    pub fn logits(&self, images: &Tensor) -> Result<Tensor> {
        let [_, channels, depth, _, _] = images.shape();
        if (channels, depth) != (3, 1) || images.is_empty() {
            let found = format!("{:?}", images.shape());
            return Err(Error::shape("2D segmenter: images", "[n, 3, 1, h, w] with voxels", found));
        }
        self.device.on_device_thread(|| self.layers(images))
    }

    fn layers(&self, images: &Tensor) -> Result<Tensor> {
        let features = self.backbone.forward(images)?;
        let small = {
            let _span = OpSpan::enter(debug_span!(target: span::TARGET, "head"), &self.device);
            self.head.forward(&features)?
        };
        resize_like(&small, images)
    }
}

/// A convolution with the batch norm of the next number, followed by a ReLU.
fn relu(conv: &Conv, x: &Tensor) -> Result<Tensor> {
    conv.forward(x, &ConvEpilogue::RELU)
}

/// `x` resized to the h and w of `like`, bilinear with `align_corners = false`.
fn resize_like(x: &Tensor, like: &Tensor) -> Result<Tensor> {
    let [.., h, w] = like.shape();
    ops::interpolate3d(x, [1, h, w], InterpolateMode::Trilinear, false)
}
