//! Warnings about images that are not of the kind the model was trained on. They cost a pass over the image, and prevent nothing.

use super::strided_view::StridedView;
use crate::models::{Normalization, UNetPlan};
use crate::volume::{Volume, Voxels};

/// Every CT of a body has voxels below this, of fat if not of air, and above it. In Hounsfield units.
const FAT: f32 = -30.0;
/// Voxels that are so many times as long or short as the model's.
const UNUSUAL: f64 = 5.0;

/// What is odd about `channels` beside the plan: a CT whose values are no Hounsfield units, and voxels of another size (`spacings`: the
/// image's and the network's, millimetres).
pub(super) fn warnings(
    channels: &[Volume],
    views: &[StridedView],
    plan: &UNetPlan,
    spacings: ([f64; 3], [f64; 3]),
) -> Vec<String> {
    let mut warnings = Vec::new();
    for ((channel, view), how) in channels.iter().zip(views).zip(&plan.normalization) {
        let Some((low, high)) = range(channel, view).filter(|_| matches!(how.scheme, Normalization::Ct { .. })) else {
            continue;
        };
        if low > FAT || high < FAT {
            warnings.push(format!(
                "its values are {low} to {high}, expected a CT in Hounsfield units, where fat and air lie below {FAT}: the result may mean nothing"
            ));
        }
    }
    let (own, network) = spacings;
    if (0..3).any(|a| own[a] > UNUSUAL * network[a] || network[a] > UNUSUAL * own[a]) {
        let mm = |sizes: [f64; 3]| sizes.map(|mm| format!("{mm:.2}")).join(" x ");
        warnings.push(format!(
            "its voxels are {} mm beside the model's {} mm (z, y, x): the result may mean nothing",
            mm(own),
            mm(network)
        ));
    }
    warnings
}

fn range(channel: &Volume, view: &StridedView) -> Option<(f32, f32)> {
    match channel.voxels() {
        Voxels::U8(v) => view.range(v).map(|(low, high)| (low.into(), high.into())),
        Voxels::I16(v) => view.range(v).map(|(low, high)| (low.into(), high.into())),
        Voxels::F32(v) => view.range(v),
    }
}
