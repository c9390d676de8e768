//! The attenuation of every tissue in every phase. docs/phantom.md tells which values are from the literature.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

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
    Tumour,
    TumourSecond,
}

/// Number of tissues, the length of tables that are indexed by tissue.
const TISSUES: usize = Tissue::TumourSecond as usize + 1;

/// The HU in the phases N, A, P, D, and the standard deviation of the tissue's texture.
type Row = ([f64; 4], f64);

/// Typical values of all tissues but the tumour, see docs/phantom.md.
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

/// The tumour's main component and its second one: the scar of an oncocytoma, the fat of an AML, the necrosis of a ccRCC. For the two
/// homogeneous subtypes both are equal.
fn tumour(subtype: Subtype) -> [Row; 2] {
    match subtype {
        Subtype::Oncocytoma => [([33.0, 112.0, 98.0, 76.0], 5.0), ([28.0, 44.0, 58.0, 66.0], 3.0)],
        Subtype::Angiomyolipoma => [([40.0, 104.0, 92.0, 74.0], 8.0), ([-85.0, -78.0, -78.0, -80.0], 8.0)],
        Subtype::Chromophobe => [([34.0, 74.0, 86.0, 68.0], 6.0); 2],
        Subtype::Papillary => [([32.0, 54.0, 66.0, 57.0], 3.0); 2],
        Subtype::ClearCell => [([33.0, 145.0, 119.0, 90.0], 16.0), ([18.0, 26.0, 30.0, 31.0], 5.0)],
    }
}

/// The values of one patient: the table scaled by the uptake of contrast medium of this patient and this tumour.
#[derive(Debug, Clone)]
pub(super) struct Enhancement([Row; TISSUES]);

impl Enhancement {
    /// Random values: the enhancement over the non-contrast value varies by +-12 % between patients, and that of the tumour by another
    /// +-10 %.
    pub(super) fn draw(rng: &mut ChaCha8Rng, subtype: Subtype) -> Self {
        let patient = rng.random_range(0.88..1.12);
        let lesion = patient * rng.random_range(0.9..1.1);
        let mut table = [([0.0; 4], 0.0); TISSUES];
        for (tissue, row) in NORMAL {
            table[tissue as usize] = scaled(row, patient);
        }
        for (tissue, row) in [Tissue::Tumour, Tissue::TumourSecond].into_iter().zip(tumour(subtype)) {
            table[tissue as usize] = scaled(row, lesion);
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
