//! Gradients of fully connected layers in f64.

/// The gradients dx, dw and db of x [n, inputs], w [outputs, inputs] and dy [n, outputs], each with the sums of its absolute terms.
pub fn linear_backward(x: &[f64], w: &[f64], dy: &[f64], [inputs, outputs]: [usize; 2]) -> [(Vec<f64>, Vec<f64>); 3] {
    let zeros = |len| (vec![0.0; len], vec![0.0; len]);
    let (mut dx, mut dw, mut db) = (zeros(x.len()), zeros(w.len()), zeros(outputs));
    let add = |to: &mut (Vec<f64>, Vec<f64>), at: usize, term: f64| {
        to.0[at] += term;
        to.1[at] += term.abs();
    };
    for (i, &dy) in dy.iter().enumerate() {
        let (row, output) = (i / outputs, i % outputs);
        add(&mut db, output, dy);
        for k in 0..inputs {
            add(&mut dx, row * inputs + k, dy * w[output * inputs + k]);
            add(&mut dw, output * inputs + k, dy * x[row * inputs + k]);
        }
    }
    [dx, dw, db]
}
