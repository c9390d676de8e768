//! Every method on every instruction set of this machine, compared with scalar code. Values are such that fused and separate
//! roundings agree, unless a test says otherwise.

use super::*;

/// Distinct values with both signs, zeros of both signs and what is no finite number.
const SPECIAL: [f32; 12] =
    [1.5, -2.0, 0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-40, -1e-40, 7.0, f32::MAX, f32::MIN];

fn special(len: usize, start: usize) -> Vec<f32> {
    SPECIAL.iter().copied().cycle().skip(start).take(len).collect()
}

fn assert_same_f32(got: &[f32], want: impl Fn(usize) -> f32, what: &str) {
    for (i, got) in got.iter().enumerate() {
        let want = want(i);
        assert!(
            got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(),
            "{what}, lane {i}: {got}, not {want}"
        );
    }
}

fn assert_same_f64(got: &[f64], want: impl Fn(usize) -> f64, what: &str) {
    for (i, got) in got.iter().enumerate() {
        let want = want(i);
        assert!(
            got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(),
            "{what}, lane {i}: {got}, not {want}"
        );
    }
}

struct F32Arithmetic;

impl Kernel for F32Arithmetic {
    fn run<S: Simd>(self, simd: S) {
        let lanes = S::F32::LANES;
        let what = |name: &str| format!("{simd:?}: {name}");
        for start in 0..SPECIAL.len() {
            let (a, b) = (special(lanes, start), special(lanes, 5 * start + 1));
            let (va, vb) = (simd.load(&a), simd.load(&b));
            let mut got = vec![0.0; lanes];
            va.add(vb).store(&mut got);
            assert_same_f32(&got, |i| a[i] + b[i], &what("add"));
            va.sub(vb).store(&mut got);
            assert_same_f32(&got, |i| a[i] - b[i], &what("sub"));
            va.mul(vb).store(&mut got);
            assert_same_f32(&got, |i| a[i] * b[i], &what("mul"));
            va.not_below_zero().store(&mut got);
            assert_same_f32(&got, |i| if a[i] < 0.0 { 0.0 } else { a[i] }, &what("not_below_zero"));
            va.if_positive_or(vb).store(&mut got);
            assert_same_f32(&got, |i| if a[i] > 0.0 { a[i] } else { b[i] }, &what("if_positive_or"));
            let c = special(lanes, 3 * start + 2);
            va.select_positive(vb, simd.load(&c)).store(&mut got);
            assert_same_f32(&got, |i| if a[i] > 0.0 { b[i] } else { c[i] }, &what("select_positive"));
            simd.splat(a[0]).store(&mut got);
            assert_same_f32(&got, |_| a[0], &what("splat"));
        }
        let numbers: Vec<f32> = (0..lanes).map(|i| i as f32 - 3.0).collect();
        let mut got = vec![0.0; lanes];
        simd.load(&numbers).mul_add(simd.splat(2.0), simd.splat(5.0)).store(&mut got);
        assert_same_f32(&got, |i| numbers[i] * 2.0 + 5.0, &what("mul_add"));
    }
}

struct Partial;

impl Kernel for Partial {
    fn run<S: Simd>(self, simd: S) {
        let lanes = S::F32::LANES;
        for count in 0..=lanes {
            let from = special(count, count);
            let vector = simd.load_partial(&from);
            let mut all = vec![9.0; lanes];
            vector.store(&mut all);
            let want = |i: usize| from.get(i).copied().unwrap_or(0.0);
            assert_same_f32(&all, want, &format!("{simd:?}: load_partial of {count}"));
            let mut some = vec![9.0; lanes + 1];
            vector.store_partial(&mut some[..count]);
            let want = |i: usize| from.get(i).copied().unwrap_or(9.0);
            assert_same_f32(&some, want, &format!("{simd:?}: store_partial of {count}"));
        }
    }
}

/// `values`, put together lane by lane: zeros become positive.
fn vector_of<S: Simd>(simd: S, values: [f64; F64_LANES]) -> S::F64 {
    (0..F64_LANES).fold(simd.splat_f64(0.0), |vector, lane| {
        let bytes = std::array::from_fn(|i| u8::from(i == lane));
        vector.add(simd.splat_f64(values[lane]).keep(simd.lanes_with_bit(&bytes, 0)))
    })
}

fn lanes_of<V: F64Vector>(v: V) -> [f64; F64_LANES] {
    let mut lanes = [0.0; F64_LANES];
    v.store(&mut lanes);
    lanes
}

/// The lanes of a mask, read off 1s that it keeps.
fn chosen<S: Simd>(simd: S, mask: <S::F64 as F64Vector>::Mask) -> [bool; F64_LANES] {
    lanes_of(simd.splat_f64(1.0).keep(mask)).map(|v| v == 1.0)
}

struct F64Arithmetic;

impl Kernel for F64Arithmetic {
    fn run<S: Simd>(self, simd: S) {
        let what = |name: &str| format!("{simd:?}: {name}");
        let a = [3.5, -1.0, 0.0, f64::NAN, 6.25, 1e300, -5.0, 2.0];
        let b = [0.5, 4.0, -2.0, 1.0, -8.0, -1e300, 3.0, 2.0];
        let (va, vb) = (vector_of(simd, a), vector_of(simd, b));
        assert_same_f64(&lanes_of(va.add(vb)), |i| a[i] + b[i], &what("add"));
        assert_same_f64(&lanes_of(va.sub(vb)), |i| a[i] - b[i], &what("sub"));
        assert_same_f64(&lanes_of(va.mul(vb)), |i| a[i] * b[i], &what("mul"));
        let two = simd.splat_f64(2.0);
        assert_same_f64(&lanes_of(va.mul_add(two, vb)), |i| a[i] * 2.0 + b[i], &what("mul_add"));
        assert_same_f64(&lanes_of(simd.ramp()), |i| i as f64, &what("ramp"));
        let clamped = |i: usize| if a[i].is_nan() { 2.0 } else { a[i].clamp(-0.5, 2.0) };
        assert_same_f64(&lanes_of(va.clamp(simd.splat_f64(-0.5), two)), clamped, &what("clamp"));
        let floats: Vec<f32> = special(F64_LANES, 0);
        assert_same_f64(&lanes_of(simd.widen(&floats)), |i| f64::from(floats[i]), &what("widen"));
        let positions = [0.0, 0.75, 1.0, 2.999, 4e9, 4_503_599_627_370_495.5, 17.0, 0.1];
        assert_same_f64(&lanes_of(vector_of(simd, positions).floor()), |i| positions[i].floor(), &what("floor"));
        let numbers = [1e16, 1.0, -1e16, 3.0, 5.0, 7.0, 11.0, 13.0];
        let n = numbers;
        let halves = (n[0] + n[4] + (n[2] + n[6])) + (n[1] + n[5] + (n[3] + n[7]));
        assert_eq!(vector_of(simd, numbers).total(), halves, "{}", what("total"));
    }
}

struct Masks;

impl Kernel for Masks {
    fn run<S: Simd>(self, simd: S) {
        for count in 0..=F64_LANES + 1 {
            let want = std::array::from_fn(|i| i < count);
            assert_eq!(chosen(simd, simd.first_lanes(count)), want, "{simd:?}: first_lanes({count})");
            assert_eq!(S::F64::all(simd.first_lanes(count)), count >= F64_LANES, "{simd:?}: all of {count}");
        }
        let bytes = [0, 1, 2, 3, 0xff, 0x80, 0x42, 5];
        for bit in 0..8 {
            let want = bytes.map(|byte| byte >> bit & 1 == 1);
            assert_eq!(chosen(simd, simd.lanes_with_bit(&bytes, bit)), want, "{simd:?}: bit {bit}");
        }
        let a = [0.0, 1.0, 2.0, 3.0, -1.0, f64::NAN, 2.5, 1.5];
        let (va, low, high) = (vector_of(simd, a), simd.splat_f64(1.0), simd.splat_f64(2.5));
        let first = simd.first_lanes(7);
        let closed = std::array::from_fn(|i| i < 7 && a[i] >= 1.0 && a[i] < 2.5);
        assert_eq!(chosen(simd, va.between(low, high, true, first)), closed, "{simd:?}: between, closed");
        let open = std::array::from_fn(|i| i < 7 && a[i] > 1.0 && a[i] < 2.5);
        assert_eq!(chosen(simd, va.between(low, high, false, first)), open, "{simd:?}: between, open");
        let (base, v, mask) = (simd.ramp(), simd.splat_f64(3.0), simd.lanes_with_bit(&bytes, 0));
        let meant = chosen(simd, mask);
        let added = |i: usize| i as f64 + if meant[i] { 3.0 } else { 0.0 };
        assert_same_f64(&lanes_of(base.add_where(mask, v)), added, "add_where");
        let added = |i: usize| i as f64 + if meant[i] { 3.0 * i as f64 } else { 0.0 };
        assert_same_f64(&lanes_of(base.add_product_where(mask, v, base)), added, "add_product_where");
    }
}

/// Looks up codes that are near one another, far apart, and at both ends of the table.
struct LookUps<'a, const WORDS: usize>(&'a Codes);

impl<const WORDS: usize> Kernel for LookUps<'_, WORDS> {
    fn run<S: Simd>(self, simd: S) {
        let values = self.0.values();
        let len = values.len() / WORDS;
        let code = |at: usize| (0..WORDS).fold(0, |code, w| code | u32::from(values[at * WORDS + w]) << (16 * w));
        let last = len - 1;
        for at in [
            [0, 1, 2, 3, 4, 5, 6, 7],
            [last, last - 1, last - 2, 3, 2, 1, 0, last],
            [100, 90, 110, 84, 115, 101, 99, 100],
            [last; F64_LANES],
            [0, 15, 16, 17, 31, 32, 33, 40],
        ] {
            for count in [F64_LANES, 5, 1] {
                // Lanes that are left out are at position 0.
                let at: [usize; F64_LANES] = std::array::from_fn(|i| if i < count { at[i] } else { 0 });
                let positions = vector_of(simd, at.map(|p| p as f64));
                let codes = simd.look_up(self.0.table::<WORDS>(), positions, simd.first_lanes(count));
                for half in 0..4 * WORDS {
                    let shift = 4 * half as u32;
                    let coefficients = codes.bilinear(shift).map(lanes_of);
                    for lane in 0..F64_LANES {
                        let bit = |k: u32| {
                            let code = if lane < count { code(at[lane]) } else { 0 };
                            f64::from(code >> (shift + k) & 1)
                        };
                        let want = [bit(0), bit(1) - bit(0), bit(2) - bit(0), bit(3) - bit(2) - bit(1) + bit(0)];
                        let got = coefficients.map(|c| c[lane]);
                        assert_eq!(got, want, "{simd:?}: {at:?}, {count} lanes, shift {shift}, lane {lane}");
                    }
                }
                let bits = u32::MAX >> (32 - 16 * WORDS);
                let lanes: Vec<_> = (0..F64_LANES).map(|i| if i < count { code(at[i]) } else { 0 }).collect();
                for bits in [bits, 0xff, 0xf0, 1] {
                    let same = lanes.iter().all(|code| (code ^ lanes[0]) & bits == 0);
                    assert_eq!(codes.common(bits), same.then_some(lanes[0] & bits), "{simd:?}: common in {bits:x}");
                }
            }
        }
        assert_eq!(simd.zero_codes().common(0xffff), Some(0));
    }
}

/// Looks up one position in lane `lane`, left out or not.
struct LookUp<'a> {
    codes: &'a Codes,
    position: f64,
    lane: usize,
    count: usize,
}

impl Kernel for LookUp<'_> {
    fn run<S: Simd>(self, simd: S) {
        let mut at = [0.0; F64_LANES];
        at[self.lane] = self.position;
        simd.look_up(self.codes.table::<1>(), vector_of(simd, at), simd.first_lanes(self.count));
    }
}

#[test]
fn f32_arithmetic_is_that_of_scalars() {
    Isa::available().for_each(|isa| isa.run(F32Arithmetic));
}

#[test]
fn partial_vectors_touch_what_they_hold_and_no_more() {
    Isa::available().for_each(|isa| isa.run(Partial));
}

#[test]
fn f64_arithmetic_is_that_of_scalars() {
    Isa::available().for_each(|isa| isa.run(F64Arithmetic));
}

#[test]
fn masks_choose_lanes() {
    Isa::available().for_each(|isa| isa.run(Masks));
}

#[test]
fn codes_are_looked_up_wherever_they_are() {
    for words in [1, 2] {
        let mut codes = Codes::new(211, words);
        for (i, value) in codes.values_mut().iter_mut().enumerate() {
            // Stretches of equal codes and of noise.
            *value = if i < 64 * words { 0x1f3 } else { (i.wrapping_mul(2_654_435_761) >> 9) as u16 };
        }
        for isa in Isa::available() {
            if words == 1 { isa.run(LookUps::<1>(&codes)) } else { isa.run(LookUps::<2>(&codes)) }
        }
    }
}

#[test]
fn positions_outside_a_table_are_refused() {
    let codes = Codes::new(20, 1);
    for isa in Isa::available() {
        let refused = |position: f64, lane: usize, count: usize| {
            let look_up = || isa.run(LookUp { codes: &codes, position, lane, count });
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(look_up)).is_err()
        };
        for lane in [0, 3, 7] {
            for count in [8, 2] {
                assert!(!refused(19.0, lane, count), "{isa:?}");
                for position in [20.0, -1.0, 1e300, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                    assert!(refused(position, lane, count), "{isa:?}: {position} in lane {lane} of {count}");
                }
            }
        }
    }
}

#[test]
fn the_fitting_instruction_set_wastes_less_than_half_a_vector() {
    for channels in 1..40 {
        let isa = Isa::fitting(channels);
        assert!(isa.f32_lanes() <= 8 || channels > 8, "{channels}: {isa:?}");
    }
    assert_eq!(Isa::fitting(64), Isa::widest());
}

#[test]
fn repeated_channels_fill_vectors_where_that_is_short() {
    for channels in 1..300 {
        let values: Vec<f32> = (0..channels).map(|i| i as f32).collect();
        let row = repeat_to_fill_vectors(&values);
        assert!(row.len().is_multiple_of(channels) && row.len() <= channels.max(256));
        assert!(row.len().is_multiple_of(16) || channels > 16 && row.len() == channels, "{channels}: {}", row.len());
        assert!(row.iter().enumerate().all(|(i, v)| *v == values[i % channels]));
    }
}
