//! Names and colours of labels for viewers: ITK-SNAP's label descriptions and 3D Slicer's colour table.

use std::io::Write;
use std::path::Path;

use crate::error::Result;
use nephron::io::write_atomic;
use nephron::models::Target;

/// Colours that the colour-blind tell apart. Source: Okabe and Ito, "Color Universal Design", 2008, without black.
const COLOURS: [[u8; 3]; 7] =
    [[0, 158, 115], [213, 94, 0], [86, 180, 233], [230, 159, 0], [204, 121, 167], [0, 114, 178], [240, 228, 66]];

/// Writes `labels.txt` (ITK-SNAP: Segmentation, Import Label Descriptions) and `labels.ctbl` (3D Slicer: load it as a colour table)
/// into `folder`.
pub(crate) fn write(folder: &Path, labels: &[Target]) -> Result<()> {
    // A quote would end the name in ITK-SNAP's file, and Slicer separates columns by spaces.
    let plain = |name: &str, space: char| -> String {
        name.chars()
            .map(|c| if c == '"' || c.is_control() { '_' } else { c })
            .map(|c| if c == ' ' { space } else { c })
            .collect()
    };
    let rows: Vec<(u8, &str, [u8; 3])> = labels
        .iter()
        .zip(COLOURS.iter().cycle())
        .map(|(label, colour)| (label.value, label.name.as_str(), *colour))
        .collect();
    write_atomic(folder.join("labels.txt"), |file| {
        writeln!(file, "# value  red green blue  opacity  visible  mesh  name")?;
        writeln!(file, "{:5} {:3} {:3} {:3} {:2} {} {} \"Clear Label\"", 0, 0, 0, 0, 0, 0, 0)?;
        for (value, name, [r, g, b]) in &rows {
            writeln!(file, "{value:5} {r:3} {g:3} {b:3} {:2} {} {} \"{}\"", 1, 1, 1, plain(name, ' '))?;
        }
        Ok(())
    })?;
    write_atomic(folder.join("labels.ctbl"), |file| {
        writeln!(file, "# value name red green blue opacity")?;
        writeln!(file, "0 background 0 0 0 0")?;
        for (value, name, [r, g, b]) in &rows {
            writeln!(file, "{value} {} {r} {g} {b} 255", plain(name, '_'))?;
        }
        Ok(())
    })?;
    Ok(())
}
