//! Parses machine code as nvdisasm prints it: instructions, labels, and the loop with the matrix instructions.

use serde::{Deserialize, Serialize};

/// The counts of a listing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Number of matrix (tensor-core) instructions.
    pub matrix: u32,
    /// Number of loads of 16 bytes from global memory, to registers (LDG) or to shared memory (LDGSTS).
    pub wide_loads: u32,
    /// Number of instructions of the innermost loop that contains most multiplications (matrix instructions, or FFMA where there are
    /// none).
    pub loop_instructions: u32,
    /// Number of those multiplications in the loop.
    pub loop_multiplications: u32,
}

enum Line<'a> {
    Label(&'a str),
    /// The mnemonic with its suffixes, and the label it may jump to.
    Instruction(&'a str, Option<&'a str>),
}

/// Whether a mnemonic is a matrix instruction: HMMA (f16, bf16, tf32), IMMA (integers) and the like, such as `HMMA.16816.F32`.
fn is_matrix(mnemonic: &str) -> bool {
    let name = mnemonic.split('.').next().unwrap_or(mnemonic);
    ["HMMA", "IMMA", "DMMA", "BMMA", "QMMA", "HGMMA", "IGMMA"].contains(&name)
}

fn is_wide_load(mnemonic: &str) -> bool {
    let mut parts = mnemonic.split('.');
    parts.next().is_some_and(|name| name == "LDG" || name == "LDGSTS") && parts.any(|part| part == "128")
}

/// `/*0110*/  @P0 LDG.E.128 R4, [R2] ;` or `.L_x_3:`; the last part of a branch is `` `(.L_x_3) ``.
fn parse(line: &str) -> Option<Line<'_>> {
    let line = line.trim();
    if let Some(label) = line.strip_suffix(':') {
        return Some(Line::Label(label));
    }
    let (_, rest) = line.strip_prefix("/*")?.split_once("*/")?;
    let mut words = rest.split_whitespace().skip_while(|word| word.starts_with('@') || word.starts_with('{'));
    let mnemonic = words.next()?;
    let target = rest.split_once("`(").and_then(|(_, target)| target.split_once(')')).map(|(label, _)| label);
    Some(Line::Instruction(mnemonic, target))
}

/// The counts of the listing of one kernel.
pub(crate) fn count(listing: &str) -> Counts {
    let lines: Vec<_> = listing.lines().filter_map(parse).collect();
    let mnemonics = |range: std::ops::RangeInclusive<usize>| {
        lines[range].iter().filter_map(|line| match line {
            Line::Instruction(mnemonic, _) => Some(*mnemonic),
            Line::Label(_) => None,
        })
    };
    let Some(last) = lines.len().checked_sub(1) else { return Counts::default() };
    let many = |is: fn(&str) -> bool| mnemonics(0..=last).filter(|m| is(m)).count() as u32;
    let (matrix, wide_loads) = (many(is_matrix), many(is_wide_load));
    let multiplies = |m: &str| if matrix > 0 { is_matrix(m) } else { m.starts_with("FFMA") };

    // A loop is a label and a jump back to it. Among the loops with the most multiplications the shortest is used.
    let loops = lines.iter().enumerate().filter_map(|(end, line)| {
        let Line::Instruction(_, Some(target)) = line else { return None };
        let start = lines[..end].iter().position(|line| matches!(line, Line::Label(label) if label == target))?;
        let multiplications = mnemonics(start..=end).filter(|m| multiplies(m)).count() as u32;
        Some((multiplications, mnemonics(start..=end).count() as u32))
    });
    let (loop_multiplications, loop_instructions) =
        loops.max_by_key(|&(multiplications, all)| (multiplications, u32::MAX - all)).unwrap_or_default();
    Counts { matrix, wide_loads, loop_instructions, loop_multiplications }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "        /*0000*/                   MOV R1, c[0x0][0x28] ;
.L_x_1:
        /*0010*/              @!P0 LDG.E.128.CONSTANT R4, [R2.64] ;
        /*0020*/                   LDGSTS.E.BYPASS.LTC128B.128.ZFILL [R9], [R2.64] ;
        /*0030*/                   LDG.E.64 R6, [R2.64] ;
.L_x_2:
        /*0040*/                   HMMA.16816.F32 R4, R8, R12, R4 ;
        /*0050*/               @P1 HMMA.16816.F32 R4, R8, R12, R4 ;
        /*0060*/               @P0 BRA `(.L_x_2) ;
        /*0070*/               @P2 BRA `(.L_x_1) ;
        /*0080*/                   FFMA R1, R2, R3, R4 ;
        /*0090*/                   BRA `(.L_x_3) ;
.L_x_3:
        /*00a0*/                   EXIT ;";

    #[test]
    fn the_innermost_loop_with_the_matrix_instructions_is_found() {
        let counts = Counts { matrix: 2, wide_loads: 2, loop_instructions: 3, loop_multiplications: 2 };
        assert_eq!(count(LISTING), counts);
    }

    #[test]
    fn without_matrix_instructions_ffma_counts() {
        let listing = LISTING.replace("HMMA.16816.F32", "FFMA").replace("IMMA", "");
        assert_eq!((count(&listing).matrix, count(&listing).loop_multiplications), (0, 2));
        assert_eq!(count(""), Counts::default());
    }

    #[test]
    fn words_that_only_look_like_matrix_instructions_are_not_counted() {
        assert_eq!(count("/*0130*/ BRA HMMAX ;\n/*0140*/ @P0 IMMA.16832.S8.S8 R4, R8.ROW, R12.COL, R4 ;").matrix, 1);
    }
}
