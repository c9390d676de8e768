//! Weights packed into panels [panel][k][lanes], so that a register block reads them in order, a vector per step of k.

use std::ops::Range;

use rayon::prelude::*;

use crate::memory::Buffer;
use crate::ops::simd::Isa;

/// The weights of one matrix product, packed for an instruction set.
#[derive(Debug)]
pub(in crate::ops) struct PackedWeights {
    pub(super) isa: Isa,
    /// [groups][panels][k][lanes], the last panel of a group filled up with zeros.
    pub(super) data: Buffer,
    pub(super) channels: Channels,
    /// Length of the summed axis.
    pub(super) k: usize,
}

/// Channel counts of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ops) struct Channels {
    /// Number of groups.
    pub groups: usize,
    /// Input channels of a group.
    pub ci: usize,
    /// Output channels of a group.
    pub co: usize,
}

/// Weights as they are stored, and the taps that take part.
pub(in crate::ops) struct Weights<'a> {
    pub data: &'a [f32],
    pub order: WeightOrder,
    /// Number of taps of the stored kernel.
    pub all_taps: usize,
    /// The taps of this product, in its order.
    pub taps: &'a [usize],
}

/// Which channel is innermost in memory.
#[derive(Clone, Copy, PartialEq)]
pub(in crate::ops) enum WeightOrder {
    /// [groups, co, taps, ci]: a convolution's.
    SummedInnermost,
    /// [groups, ci, taps, co]: a transposed convolution's, and a convolution's read for its data gradient.
    OutputInnermost,
}

impl PackedWeights {
    pub fn pack(isa: Isa, channels: Channels, weights: &Weights<'_>) -> Self {
        let Channels { groups, ci, co } = channels;
        let (lanes, k) = (isa.f32_lanes(), weights.taps.len() * ci);
        let panels = co.div_ceil(lanes);
        let mut data = Buffer::unwritten(groups * panels * k * lanes);
        data.par_chunks_mut((k * lanes).max(1)).enumerate().for_each(|(i, panel)| {
            let (group, first) = (i / panels, i % panels * lanes);
            weights.copy_panel(channels, group, first..co.min(first + lanes), lanes, panel);
        });
        Self { isa, data, channels, k }
    }

    /// Whether the weights were packed for that instruction set and those channels.
    pub fn is_for(&self, isa: Isa, channels: Channels) -> bool {
        self.isa == isa && self.channels == channels
    }

    pub(super) fn panels(&self) -> usize {
        self.channels.co.div_ceil(self.isa.f32_lanes())
    }

    /// Pairs of panels over all groups; an odd panel at a group's end is a pair of its own.
    pub(super) fn columns(&self) -> usize {
        self.channels.groups * self.panels().div_ceil(2)
    }

    /// [groups][panels][lanes] of a value per output channel of all groups, zero where there is none.
    pub(super) fn padded(&self, bias: Option<&[f32]>) -> Vec<f32> {
        let lanes = self.panels() * self.isa.f32_lanes();
        let mut padded = vec![0.0; self.channels.groups * lanes];
        if let Some(bias) = bias {
            let co = self.channels.co.max(1);
            for (to, from) in padded.chunks_exact_mut(lanes.max(1)).zip(bias.chunks_exact(co)) {
                to[..co].copy_from_slice(from);
            }
        }
        padded
    }

    /// Rows of a register block: as many as the registers hold.
    pub(super) fn rows(&self) -> usize {
        if self.isa.f32_lanes() == 16 || self.panels() == 1 { 12 } else { 6 }
    }
}

impl Weights<'_> {
    /// The output channels `range` of `group` into `panel` [taps, ci, lanes], whose other lanes become zero.
    fn copy_panel(
        &self,
        Channels { ci, co, .. }: Channels,
        group: usize,
        range: Range<usize>,
        lanes: usize,
        panel: &mut [f32],
    ) {
        if range.len() < lanes {
            panel.fill(0.0);
        }
        for (&tap, block) in self.taps.iter().zip(panel.chunks_exact_mut(ci * lanes)) {
            match self.order {
                WeightOrder::SummedInnermost => {
                    for (lane, out) in range.clone().enumerate() {
                        let row = &self.data[((group * co + out) * self.all_taps + tap) * ci..][..ci];
                        for (step, value) in block.chunks_exact_mut(lanes).zip(row) {
                            step[lane] = *value;
                        }
                    }
                }
                WeightOrder::OutputInnermost => {
                    for (c, step) in block.chunks_exact_mut(lanes).enumerate() {
                        let row = &self.data[((group * ci + c) * self.all_taps + tap) * co..][..co];
                        step[..range.len()].copy_from_slice(&row[range.clone()]);
                    }
                }
            }
        }
    }
}
