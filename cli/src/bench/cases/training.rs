//! Steps of nnU-Net's training, of seeded networks in f32 on random labels: forward with every head, loss with deep supervision, backward,
//! clipping and stochastic gradient descent. The tests hold each of them to PyTorch or to a reference in f64; here loss and norm of the
//! gradients have to be finite.

use std::cell::RefCell;

use super::{Case, tensor, values};
use nephron::device::Device;
use nephron::error::{Error, Result};
use nephron::models::UNetArchitecture;
use nephron::ops::SegmentationLoss;
use nephron::tensor::{DType, Tensor};
use nephron::training::{Sgd, SgdOptions, TrainableUNet, deep_supervision};

/// Images of a batch.
const BATCH: usize = 2;
const CLASSES: usize = 3;
/// Low, so that a network that learns random labels for a while does not diverge.
const RATE: f64 = 1e-4;

/// A network and the patch that it is trained on.
#[derive(Clone, Copy)]
pub(super) struct Step {
    /// Channels of the first stage; those of the kidney plan for 32.
    features: usize,
    patch: [usize; 3],
}

/// A plain network of five stages whose channels double from 8 on, and the kidney plan's.
pub(super) const STEPS: [Step; 3] = [
    Step { features: 8, patch: [32, 64, 64] },
    Step { features: 8, patch: [48, 96, 96] },
    Step { features: 32, patch: [48, 96, 96] },
];

impl Step {
    pub(super) fn name(self) -> String {
        let [d, h, w] = self.patch;
        let network =
            if self.features == 32 { "kidney plan".to_owned() } else { format!("{} features", self.features) };
        format!("{network}, patch {d}x{h}x{w}, batch {BATCH}")
    }

    fn architecture(self) -> UNetArchitecture {
        if self.features == 32 {
            return UNetArchitecture::kidney(1, CLASSES);
        }
        let features = (0..5).map(|stage| self.features << stage).collect();
        UNetArchitecture { features, ..UNetArchitecture::plain(1, CLASSES, vec![2; 5], vec![2; 4]) }
    }
}

pub(super) fn step(step: Step, device: &Device) -> Result<Case> {
    let (architecture, [d, h, w]) = (step.architecture(), step.patch);
    let network = TrainableUNet::seeded(&architecture, 1, device)?;
    let sgd = Sgd::new(network.weights(), SgdOptions::default())?;
    let x = tensor(device, [BATCH, 1, d, h, w], DType::F32)?;
    let labels: Vec<Tensor> = network
        .head_sizes(step.patch)?
        .into_iter()
        .map(|[d, h, w]| {
            let random = values(BATCH * d * h * w).into_iter().map(|v| ((v + 1.0) * 1e4) as usize % CLASSES);
            Tensor::from_u8(device, [BATCH, 1, d, h, w], random.map(|label| label as u8).collect())
        })
        .collect::<Result<_>>()?;
    let state = RefCell::new((network, sgd));
    let run = move || {
        let (network, sgd) = &mut *state.borrow_mut();
        let (logits, tape) = network.forward(&x)?;
        let (loss, dlogits) = deep_supervision(&logits, &labels, &SegmentationLoss::default())?;
        drop(logits);
        let gradients = network.backward(tape, &dlogits)?;
        let (weights, norm) = sgd.step(network.weights(), &gradients, RATE)?;
        network.set_weights(weights)?;
        if loss.is_finite() && norm.is_finite() {
            Ok(())
        } else {
            Err(Error::Data(format!("train: loss {loss} and norm {norm} are not finite: a wrong result is not timed")))
        }
    };
    run()?;
    Ok(Case {
        op: "train",
        name: step.name(),
        // A convolution has two gradients of its size.
        flops: 3.0 * BATCH as f64 * architecture.flops(step.patch),
        dtype: None,
        bytes: None,
        run: Box::new(run),
        check: Box::new(|| Ok(())),
    })
}
