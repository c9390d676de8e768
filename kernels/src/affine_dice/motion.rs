//! Turns: what a step of a rigid map or a similarity needs. Six to seven parameters: shift t, angles about x, y and z,
//! logarithm of the scale; absent ones are 0.

use cubecl::prelude::*;

/// 2 pi in two parts, the first exact in few bits.
const TURN_HIGH: f32 = 6.28125;
const TURN_LOW: f32 = 0.001_935_307_2;

/// Values of [`write_motion`]: A = s R and t as rows of 4, then the axes of the three angles.
pub const MOTION: usize = 21;

/// Writes the map [A | `shift_unit` t] (12 values), A = s Rz Ry Rx, and the unit axes about which x, y and z turn it (3
/// each): d A / d angle is the cross product of its axis with A's columns.
#[cube]
pub fn write_motion(parameters: &SharedMemory<f32>, shift_unit: f32, out: &mut SharedMemory<f32>) {
    let (sin_x, cos_x) = sin_cos(parameters[3]);
    let (sin_y, cos_y) = sin_cos(parameters[4]);
    let (sin_z, cos_z) = sin_cos(parameters[5]);
    let scale = f32::exp(parameters[6]);
    out[0] = scale * cos_z * cos_y;
    out[1] = scale * (cos_z * sin_y * sin_x - sin_z * cos_x);
    out[2] = scale * (cos_z * sin_y * cos_x + sin_z * sin_x);
    out[3] = shift_unit * parameters[0];
    out[4] = scale * sin_z * cos_y;
    out[5] = scale * (sin_z * sin_y * sin_x + cos_z * cos_x);
    out[6] = scale * (sin_z * sin_y * cos_x - cos_z * sin_x);
    out[7] = shift_unit * parameters[1];
    out[8] = -scale * sin_y;
    out[9] = scale * cos_y * sin_x;
    out[10] = scale * cos_y * cos_x;
    out[11] = shift_unit * parameters[2];
    out[12] = cos_z * cos_y;
    out[13] = sin_z * cos_y;
    out[14] = -sin_y;
    out[15] = -sin_z;
    out[16] = cos_z;
    out[17] = 0.0;
    out[18] = 0.0;
    out[19] = 0.0;
    out[20] = 1.0;
}

/// d loss / d parameter `which` of a motion from d loss / d [A | b], row by row.
#[cube]
pub fn motion_gradient(motion: &SharedMemory<f32>, by_map: &SharedMemory<f32>, shift_unit: f32, which: usize) -> f32 {
    let mut gradient = 0.0f32;
    if which < 3 {
        gradient = shift_unit * by_map[4 * which + 3];
    } else if which < 6 {
        // The torque: columns of A crossed with the derivatives by them.
        let axis = 12 + 3 * (which - 3);
        #[unroll]
        for r in 0..3usize {
            let i = comptime!((r + 1) % 3);
            let j = comptime!((r + 2) % 3);
            let mut torque = 0.0f32;
            #[unroll]
            for k in 0..3usize {
                torque += motion[4 * i + k] * by_map[4 * j + k] - motion[4 * j + k] * by_map[4 * i + k];
            }
            gradient += motion[axis + r] * torque;
        }
    } else {
        #[unroll]
        for r in 0..3usize {
            #[unroll]
            for k in 0..3usize {
                gradient += motion[4 * r + k] * by_map[4 * r + k];
            }
        }
    }
    gradient
}

/// Sine and cosine to 1e-6, from their series at an eighth of the angle. CUDA's own reduce large angles through local
/// memory.
#[cube]
fn sin_cos(angle: f32) -> (f32, f32) {
    let turns = f32::floor(angle * 0.159_154_94 + 0.5);
    let x = (angle - turns * TURN_HIGH - turns * TURN_LOW) * 0.125;
    let x2 = x * x;
    let mut sin = x * (1.0 + x2 * (-0.166_666_67 + x2 * (0.008_333_333 + x2 * -0.000_198_412_7)));
    let mut cos = 1.0 + x2 * (-0.5 + x2 * (0.041_666_668 + x2 * (-0.001_388_888_9 + x2 * 0.000_024_801_587)));
    #[unroll]
    for _ in 0..3usize {
        let double = 2.0 * sin * cos;
        cos = 1.0 - 2.0 * sin * sin;
        sin = double;
    }
    (sin, cos)
}
