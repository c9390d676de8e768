//! Spans of `tracing` around ops and the stages of networks, for timelines and profilers.
//!
//! A span has the name of the op, and a field `operands` with type and shapes of the operands. Without a subscriber it costs almost
//! nothing. With [`DeviceOptions::synchronous_spans`](crate::DeviceOptions) it ends only after the device has finished.

use tracing::span::EnteredSpan;

use crate::device::Device;
use crate::tensor::Tensor;

/// The `tracing` target of all spans.
pub const TARGET: &str = "nephron::ops";

/// An entered span; it ends when this value goes out of scope.
#[must_use]
pub struct OpSpan {
    /// The device to wait for before the span ends; None where its options do not require it.
    device: Option<Device>,
    span: Option<EnteredSpan>,
}

impl OpSpan {
    /// Enters `span`, which covers work on `device`.
    pub fn enter(span: tracing::Span, device: &Device) -> Self {
        if span.is_disabled() {
            return Self { device: None, span: None };
        }
        let device = device.options().synchronous_spans.then(|| device.clone());
        if let Some(device) = &device {
            // Work that was launched before is not part of this span. A failure of the device is reported by the next read.
            let _ = device.synchronize();
        }
        Self { device, span: Some(span.entered()) }
    }

    /// The device of the first operand, and the text of a span's field `operands`: `f32 [1, 3, 8, 8, 8] by [4, 3, 1, 1, 1]`.
    pub fn operands(operands: &[&Tensor]) -> (Device, String) {
        let Some(first) = operands.first() else { return (Device::Cpu, String::new()) };
        let shapes: Vec<String> = operands.iter().map(|t| format!("{:?}", t.shape())).collect();
        (first.device(), format!("{} {}", first.dtype(), shapes.join(" by ")))
    }
}

impl Drop for OpSpan {
    fn drop(&mut self) {
        if let Some(device) = &self.device {
            let _ = device.synchronize();
        }
        self.span.take();
    }
}

/// `op_span!("conv3d", &[x, w])`: the span of an op with its operands. It is a macro because `tracing` needs the name of a span at compile
/// time.
macro_rules! op_span {
    ($name:literal, $operands:expr) => {
        if tracing::enabled!(target: $crate::ops::span::TARGET, tracing::Level::DEBUG) {
            let (device, operands) = $crate::ops::span::OpSpan::operands($operands);
            let span = tracing::debug_span!(target: $crate::ops::span::TARGET, $name, operands, device = device.name());
            Some($crate::ops::span::OpSpan::enter(span, &device))
        } else {
            None
        }
    };
}
pub(crate) use op_span;
