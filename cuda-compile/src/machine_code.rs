//! Reads machine code: matrix instructions, wide loads, and the loop with most multiplications.
//!
//! An instruction of sm_80 and sm_90a has 128 bits. The positions of the fields below are those that `nvdisasm --print-code
//! --print-instruction-encoding` prints beside the mnemonics, and the tests compare the counts with those of its listing. nvdisasm
//! itself takes 0.4 s for each kernel, more than most compilations.

use serde::{Deserialize, Serialize};

use crate::properties::Architecture;

/// The counts of the machine code of a kernel.
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

/// The bytes of an instruction.
const BYTES: usize = 16;
/// `sh_type` and `sh_flags` of a section of code in an ELF file.
const SHT_PROGBITS: u64 = 1;
const SHF_EXECINSTR: u64 = 4;

/// An instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instruction(u128);

impl Instruction {
    fn bits(self, first: u32, count: u32) -> u128 {
        self.0 >> first & ((1 << count) - 1)
    }

    /// The operation with the form of its operands.
    fn opcode(self) -> u32 {
        self.bits(0, 12) as u32
    }

    /// HMMA (f16, bf16, tf32), IMMA, DMMA and BMMA, and those of wgmma on sm_90a: HGMMA, IGMMA and QGMMA.
    fn is_matrix(self) -> bool {
        [0x23c, 0x237, 0x23f, 0x23d, 0x9f0, 0x9f1, 0x9f3].contains(&self.opcode())
    }

    /// FFMA; the upper three bits of the opcode tell which operand is a constant.
    fn is_ffma(self) -> bool {
        self.opcode() & 0x1ff == 0x023
    }

    /// LDG or LDGSTS of 128 bits.
    fn is_wide_load(self) -> bool {
        matches!(self.opcode(), 0x981 | 0xfae) && self.bits(73, 3) == 6
    }

    /// The distance in bytes from the next instruction to the target of a branch (BRA).
    fn branch(self, arch: Architecture) -> Option<i64> {
        let signed = |value: u128, bits: u32| ((value << (128 - bits)) as i128 >> (128 - bits)) as i64;
        (self.opcode() == 0x947).then(|| match arch.version {
            90 => 4 * signed(self.bits(34, 48) << 8 | self.bits(16, 8), 56),
            _ => signed(self.bits(32, 50), 50),
        })
    }
}

/// The counts of a cubin; None where it is not understood.
pub(crate) fn count(cubin: &[u8], arch: Architecture) -> Option<Counts> {
    let sections = sections(cubin)?;
    let many = |is: fn(Instruction) -> bool| sections.iter().flatten().filter(|i| is(**i)).count() as u32;
    let (matrix, wide_loads) = (many(Instruction::is_matrix), many(Instruction::is_wide_load));
    let multiplies = if matrix > 0 { Instruction::is_matrix } else { Instruction::is_ffma };

    // A loop is what lies between an instruction and a jump back to it. Among the loops with the most multiplications the shortest
    // is used.
    let loops = sections.iter().flat_map(|code| {
        code.iter().enumerate().filter_map(|(end, instruction)| {
            let start = (end as i64 + 1) + instruction.branch(arch)? / BYTES as i64;
            let body = code.get(usize::try_from(start).ok()?..=end).filter(|body| !body.is_empty())?;
            let multiplications = body.iter().filter(|i| multiplies(**i)).count() as u32;
            Some((multiplications, body.len() as u32))
        })
    });
    let (loop_multiplications, loop_instructions) =
        loops.max_by_key(|&(multiplications, all)| (multiplications, u32::MAX - all)).unwrap_or_default();
    Some(Counts { matrix, wide_loads, loop_instructions, loop_multiplications })
}

/// The instructions of each section of code: one for the kernel, and one for each function that was not inlined.
pub(crate) fn sections(elf: &[u8]) -> Option<Vec<Vec<Instruction>>> {
    let number = |at: usize, bytes: usize| {
        let bytes = elf.get(at..at.checked_add(bytes)?)?;
        Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    };
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (headers, size, count) = (number(0x28, 8)? as usize, number(0x3a, 2)? as usize, number(0x3c, 2)? as usize);
    let mut sections = Vec::new();
    for i in 0..count {
        let header = headers.checked_add(i * size)?;
        // Past its first number an offset of a header that is in the file cannot overflow.
        let (kind, flags) = (number(header.checked_add(4)?, 4)?, number(header + 8, 8)?);
        if kind == SHT_PROGBITS && flags & SHF_EXECINSTR != 0 {
            let (start, len) = (number(header + 0x18, 8)? as usize, number(header + 0x20, 8)? as usize);
            let code = elf.get(start..start.checked_add(len)?)?.chunks_exact(BYTES);
            sections.push(code.map(|i| Instruction(u128::from_le_bytes(i.try_into().expect("16 bytes")))).collect());
        }
    }
    (!sections.is_empty()).then_some(sections)
}

#[cfg(test)]
mod tests;
