//! Fully connected layers in f64.

/// `torch.nn.functional.linear` of x [n, inputs] and w [outputs, inputs], and the sum of its absolute terms.
pub fn linear(x: &[f64], w: &[f64], bias: Option<&[f64]>, inputs: usize, outputs: usize) -> (Vec<f64>, Vec<f64>) {
    let rows = x.len() / inputs;
    (0..rows * outputs)
        .map(|i| {
            let (row, output) = (i / outputs, i % outputs);
            let mut terms: Vec<f64> = (0..inputs).map(|k| x[row * inputs + k] * w[output * inputs + k]).collect();
            terms.extend(bias.map(|b| b[output]));
            (terms.iter().sum::<f64>(), terms.iter().map(|t| t.abs()).sum::<f64>())
        })
        .unzip()
}
