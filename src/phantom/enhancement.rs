//! The attenuation of every tissue in every phase. docs/phantom.md tells which values are from the literature.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::acquisition::Protocol;
use super::anatomy::Anatomy;
use super::noise::{Purpose, normal, stream};
use super::place::Cyst;
use super::shape::smoothstep;
use crate::phase::{Phase, Subtype};

/// The tissue at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tissue {
    Air,
    Skin,
    Fat,
    Muscle,
    CorticalBone,
    SpongyBone,
    Disc,
    SpinalCanal,
    Aorta,
    Artery,
    VenaCava,
    RenalVein,
    Cortex,
    Medulla,
    Urine,
    Liver,
    LiverVein,
    Bile,
    Spleen,
    Pancreas,
    BowelWall,
    BowelContent,
    Gas,
    Cyst,
    SecondCyst,
    ThirdCyst,
    /// The main tumour.
    Tumour,
    TumourSecond,
    /// The second tumour of a patient.
    OtherTumour,
    OtherTumourSecond,
}

/// Number of tissues, the length of tables that are indexed by tissue.
const TISSUES: usize = Tissue::OtherTumourSecond as usize + 1;

/// The HU in the phases N, A, P, D, and the standard deviation of the tissue's texture.
type Row = ([f64; 4], f64);

/// Typical values of all tissues but cysts and tumours, see docs/phantom.md.
const NORMAL: [(Tissue, Row); 23] = [
    (Tissue::Air, ([-1000.0, -1000.0, -1000.0, -1000.0], 0.0)),
    (Tissue::Skin, ([40.0, 45.0, 50.0, 50.0], 0.0)),
    (Tissue::Fat, ([-105.0, -104.0, -102.0, -102.0], 5.0)),
    (Tissue::Muscle, ([54.0, 58.0, 66.0, 65.0], 6.0)),
    (Tissue::CorticalBone, ([650.0, 650.0, 650.0, 650.0], 60.0)),
    (Tissue::SpongyBone, ([170.0, 175.0, 185.0, 185.0], 25.0)),
    (Tissue::Disc, ([85.0, 86.0, 88.0, 88.0], 5.0)),
    (Tissue::SpinalCanal, ([28.0, 30.0, 34.0, 34.0], 4.0)),
    (Tissue::Aorta, ([42.0, 310.0, 155.0, 105.0], 2.0)),
    (Tissue::Artery, ([42.0, 280.0, 150.0, 104.0], 2.0)),
    (Tissue::VenaCava, ([41.0, 85.0, 140.0, 106.0], 6.0)),
    (Tissue::RenalVein, ([41.0, 150.0, 160.0, 108.0], 2.0)),
    (Tissue::Cortex, ([34.0, 172.0, 182.0, 135.0], 5.0)),
    (Tissue::Medulla, ([32.0, 78.0, 168.0, 140.0], 5.0)),
    (Tissue::Urine, ([6.0, 8.0, 14.0, 420.0], 2.0)),
    (Tissue::Liver, ([58.0, 76.0, 112.0, 90.0], 4.0)),
    (Tissue::LiverVein, ([42.0, 95.0, 168.0, 112.0], 2.0)),
    (Tissue::Bile, ([8.0, 8.0, 9.0, 10.0], 2.0)),
    (Tissue::Spleen, ([48.0, 118.0, 124.0, 94.0], 5.0)),
    (Tissue::Pancreas, ([42.0, 105.0, 95.0, 76.0], 9.0)),
    (Tissue::BowelWall, ([42.0, 80.0, 90.0, 78.0], 4.0)),
    (Tissue::BowelContent, ([22.0, 22.0, 23.0, 24.0], 10.0)),
    (Tissue::Gas, ([-960.0, -960.0, -960.0, -960.0], 0.0)),
];

/// The texture of a cyst's fluid, HU.
const CYST_TEXTURE: f64 = 1.5;

/// The distribution of a tumour's attenuation, see docs/phantom.md.
struct Distribution {
    /// The mean HU of the main component in the phases N, A, P, D.
    mean: [f64; 4],
    /// The standard deviation without contrast medium, HU.
    native: f64,
    /// The standard deviation of the logarithm of the factor by which a tumour enhances in all phases.
    uptake: f64,
    /// The median of the texture's standard deviation, HU.
    texture: f64,
    /// The mean HU and the texture of the second component.
    second: Row,
}

/// The standard deviation of the logarithm of the factor by which a tumour enhances in one phase.
const PHASE_UPTAKE: f64 = 0.08;
/// The standard deviation of the logarithm of a tumour's texture.
const TEXTURE_SPREAD: f64 = 0.4;
/// The standard deviation of the second component without contrast medium, HU.
const SECOND_NATIVE: f64 = 5.0;
const NECROSIS: Row = ([18.0, 26.0, 30.0, 31.0], 5.0);

fn distribution(subtype: Subtype) -> Distribution {
    let of = |mean, native, uptake, texture, second| Distribution { mean, native, uptake, texture, second };
    match subtype {
        Subtype::Oncocytoma => of([32.0, 112.0, 98.0, 76.0], 7.5, 0.22, 6.0, ([28.0, 44.0, 58.0, 66.0], 3.0)),
        Subtype::Angiomyolipoma => of([40.0, 104.0, 94.0, 78.0], 7.0, 0.22, 7.0, ([-85.0, -78.0, -78.0, -80.0], 8.0)),
        Subtype::Chromophobe => of([35.0, 76.0, 92.0, 72.0], 7.0, 0.25, 6.0, NECROSIS),
        Subtype::Papillary => of([32.0, 52.0, 65.0, 57.0], 7.5, 0.3, 5.0, NECROSIS),
        Subtype::ClearCell => of([33.0, 145.0, 119.0, 90.0], 7.5, 0.22, 10.0, NECROSIS),
    }
}

impl Distribution {
    /// The rows of the two components of a tumour of a diameter (mm) in a patient whose uptake is `patient`. The number of random
    /// numbers does not depend on the subtype.
    fn draw(&self, rng: &mut ChaCha8Rng, diameter: f64, patient: f64) -> [Row; 2] {
        let [native, uptake, texture, second]: [f64; 4] = std::array::from_fn(|_| normal(rng));
        let phases: [f64; 4] = std::array::from_fn(|_| normal(rng));
        // Half of the variance is subtracted, so that the mean of each factor is 1.
        let factor = |sd: f64, z: f64| (sd * z - 0.5 * sd * sd).exp();
        let lesion = patient * factor(self.uptake, uptake);
        let start = self.mean[0] + self.native * native;
        let mean = std::array::from_fn(|i| {
            start + (self.mean[i] - self.mean[0]) * if i > 0 { lesion * factor(PHASE_UPTAKE, phases[i]) } else { 0.0 }
        });
        // Small tumours are more homogeneous.
        let texture = self.texture * (TEXTURE_SPREAD * texture).exp() * (0.6 + 0.4 * smoothstep(15.0, 40.0, diameter));
        let (hu, sd) = scaled(self.second, lesion);
        [(mean, texture), (hu.map(|x| x + SECOND_NATIVE * second), sd)]
    }
}

/// The values of one patient: the table scaled by the uptake of contrast medium of this patient, and the values of the patient's own
/// cysts and tumours.
#[derive(Debug, Clone)]
pub(super) struct Enhancement([Row; TISSUES]);

impl Enhancement {
    /// Random values: the protocol has the ranges of the patient's factors of the enhancement over the non-contrast value. `rng` is the
    /// main stream.
    pub(super) fn draw(
        rng: &mut ChaCha8Rng,
        seed: u64,
        subtype: Subtype,
        anatomy: &Anatomy,
        protocol: &Protocol,
    ) -> Self {
        let within = |[low, high]: [f64; 2], share: f64| low + (high - low) * share;
        let patient = within(protocol.uptake, rng.random_range(0.0..1.0));
        let arterial = within(protocol.arterial, stream(seed, Purpose::Timing).random_range(0.0..1.0));
        let mut table = [([0.0; 4], 0.0); TISSUES];
        for (tissue, row) in NORMAL {
            table[tissue as usize] = scaled(row, patient);
        }
        for (cyst, tissue) in anatomy.cysts.iter().zip(Cyst::TISSUES) {
            table[tissue as usize] = ([cyst.hu; 4], CYST_TEXTURE);
        }
        let components = [[Tissue::Tumour, Tissue::TumourSecond], [Tissue::OtherTumour, Tissue::OtherTumourSecond]];
        for (number, (tumour, tissues)) in anatomy.tumours.iter().zip(components).enumerate() {
            let mut rng = stream(seed, Purpose::Enhancement(number as u64));
            let rows = distribution(subtype).draw(&mut rng, 2.0 * tumour.axes[0], patient);
            for (tissue, row) in tissues.into_iter().zip(rows) {
                table[tissue as usize] = row;
            }
        }
        for (hu, _) in &mut table {
            hu[Phase::Arterial as usize] = hu[0] + (hu[Phase::Arterial as usize] - hu[0]) * arterial;
        }
        Self(table)
    }

    /// HU of the tissue in a phase, and the standard deviation of its texture.
    pub(super) fn hu(&self, tissue: Tissue, phase: Phase) -> (f64, f64) {
        let (mean, sd) = self.0[tissue as usize];
        (mean[phase as usize], sd)
    }
}

fn scaled((hu, sd): Row, factor: f64) -> Row {
    (hu.map(|x| hu[0] + (x - hu[0]) * factor), sd)
}
