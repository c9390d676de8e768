//! The ground truth of many synthetic patients as a table: what a classifier of the true attenuation can tell.
//!
//! ```text
//! cargo run --example phantom_truth -- [PATIENTS] [FIRST_SEED] > truth.csv
//! ```
//! Subtypes are balanced: seed, then class seed mod 5.

use nephron::phantom::{PhantomOptions, truth};
use nephron::phase::Subtype;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let count = numbers.next().transpose()?.unwrap_or(1500);
    let first = numbers.next().transpose()?.unwrap_or(0);
    println!("seed,subtype,hu_n,hu_a,hu_p,hu_d,second_fraction,texture,diameter,tumours,cysts");
    for seed in first..first + count {
        let subtype = Subtype::ALL[(seed % Subtype::ALL.len() as u64) as usize];
        let patient = truth(&PhantomOptions { seed, subtype: Some(subtype), ..PhantomOptions::default() })?;
        let main = &patient.tumours[0];
        let [n, a, p, d] = main.hu;
        let diameter = main.diameters.iter().sum::<f64>() / 3.0;
        let (second, texture) = (main.second_fraction, main.texture);
        println!(
            "{seed},{subtype},{n:.1},{a:.1},{p:.1},{d:.1},{second:.4},{texture:.1},{diameter:.1},{},{}",
            patient.tumours.len(),
            patient.cysts.len()
        );
    }
    Ok(())
}
