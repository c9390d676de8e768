//! Analytic solids. Each function returns the depth of a point in millimetres: positive inside, negative outside, and near the
//! surface close to the distance from it.

pub(super) type V3 = [f64; 3];

pub(super) fn dot(a: V3, b: V3) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

pub(super) fn sub(a: V3, b: V3) -> V3 {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

pub(super) fn middle(a: V3, b: V3) -> V3 {
    [0.5 * (a[0] + b[0]), 0.5 * (a[1] + b[1]), 0.5 * (a[2] + b[2])]
}

pub(super) fn add_scaled(a: V3, s: f64, b: V3) -> V3 {
    [a[0] + s * b[0], a[1] + s * b[1], a[2] + s * b[2]]
}

pub(super) fn norm(a: V3) -> f64 {
    dot(a, a).sqrt()
}

pub(super) fn unit(a: V3) -> V3 {
    let length = norm(a);
    a.map(|x| x / length)
}

/// The depth in an ellipsoid around the origin: the first-order distance f / |grad f|, exact for a sphere.
pub(super) fn ellipsoid(p: V3, axes: V3) -> f64 {
    let scaled: V3 = std::array::from_fn(|i| p[i] / axes[i]);
    let rho = norm(scaled);
    if rho < 1e-6 {
        return axes[0].min(axes[1]).min(axes[2]);
    }
    let gradient = norm(std::array::from_fn(|i| scaled[i] / axes[i]));
    rho * (1.0 - rho) / gradient
}

/// The depth in an elliptic cylinder along z.
pub(super) fn ellipse(x: f64, y: f64, axes: [f64; 2]) -> f64 {
    ellipsoid([x, y, 0.0], [axes[0], axes[1], 1.0])
}

/// The depth in a capsule: all points within `radius` of the segment from `a` to `b`.
pub(super) fn capsule(p: V3, a: V3, b: V3, radius: f64) -> f64 {
    let (ap, ab) = (sub(p, a), sub(b, a));
    let t = (dot(ap, ab) / dot(ab, ab)).clamp(0.0, 1.0);
    radius - norm(add_scaled(ap, -t, ab))
}

/// A smooth step: 0 below `low`, 1 above `high`.
pub(super) fn smoothstep(low: f64, high: f64, x: f64) -> f64 {
    let t = ((x - low) / (high - low)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}
