//! The counts of machine code, beside those of nvdisasm's listing.

use std::process::Command;

use super::*;
use crate::properties::ARCHITECTURES;
use crate::toolkit;

enum Line<'a> {
    Label(&'a str),
    /// The mnemonic with its suffixes, and the label it may jump to.
    Instruction(&'a str, Option<&'a str>),
}

/// Whether a mnemonic is a matrix instruction, such as `HMMA.16816.F32`.
fn is_matrix(mnemonic: &str) -> bool {
    let name = mnemonic.split('.').next().unwrap_or(mnemonic);
    ["HMMA", "IMMA", "DMMA", "BMMA", "HGMMA", "IGMMA", "QGMMA"].contains(&name)
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
    // The return from a function names the kernel that called it, and is no loop.
    let target = target.filter(|label| label.starts_with(".L_"));
    Some(Line::Instruction(mnemonic, target))
}

/// The counts of the listing of one kernel.
fn count_listing(listing: &str) -> Counts {
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

/// A loop in a loop, with FFMA, loads of 4 and 16 bytes, and code after the loop.
const FFMA: &str = "
extern \"C\" __global__ void k(const float4* a, float* y, int n, int m) {
    float4 s = a[threadIdx.x];
    for (int j = 0; j < m; j++) {
        float4 t = a[threadIdx.x + 32 * j];
        #pragma unroll 1
        for (int i = 0; i < n; i++) {
            float b = y[i];
            s.x = s.x * t.x + b; s.y = s.y * t.y + b; s.z = s.z * 1.5f + b; s.w = s.w * t.w + t.x;
        }
        s.x += t.y;
    }
    y[threadIdx.x] = s.x * s.y + s.z * s.w;
}";

/// Copies of 16 bytes to shared memory and every kind of matrix instruction of sm_80, in a loop.
const MATRIX: &str = "
extern \"C\" __global__ void k(const float4* x, unsigned* u, double* q, int n) {
    __shared__ float4 stage[64];
    unsigned to = (unsigned)__cvta_generic_to_shared(&stage[threadIdx.x]);
    float f[4] = {0.f, 0.f, 0.f, 0.f}; int d[4] = {0, 0, 0, 0}; double e[2] = {0., 0.};
    for (int i = 0; i < n; i++) {
        asm volatile(\"cp.async.cg.shared.global [%0], [%1], 16;\" :: \"r\"(to), \"l\"(x + 32 * i) : \"memory\");
        asm volatile(\"cp.async.ca.shared.global [%0], [%1], 4;\" :: \"r\"(to + 512), \"l\"(x + 64 * i) : \"memory\");
        asm volatile(\"cp.async.wait_all;\" ::: \"memory\");
        __syncthreads();
        const unsigned* s = (const unsigned*)&stage[threadIdx.x];
        asm volatile(\"mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};\"
            : \"+f\"(f[0]), \"+f\"(f[1]), \"+f\"(f[2]), \"+f\"(f[3])
            : \"r\"(s[0]), \"r\"(s[1]), \"r\"(s[2]), \"r\"(s[3]), \"r\"(s[4]), \"r\"(s[5]));
        asm volatile(\"mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};\"
            : \"+r\"(d[0]), \"+r\"(d[1]), \"+r\"(d[2]), \"+r\"(d[3])
            : \"r\"(s[0]), \"r\"(s[1]), \"r\"(s[2]), \"r\"(s[3]), \"r\"(s[4]), \"r\"(s[5]));
        asm volatile(\"mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};\"
            : \"+r\"(d[0]), \"+r\"(d[1]), \"+r\"(d[2]), \"+r\"(d[3])
            : \"r\"(s[0]), \"r\"(s[1]), \"r\"(s[2]), \"r\"(s[3]), \"r\"(s[4]), \"r\"(s[5]));
        asm volatile(\"mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0,%1},{%2},{%3},{%0,%1};\"
            : \"+d\"(e[0]), \"+d\"(e[1]) : \"d\"(q[i]), \"d\"(q[i + 1]));
    }
    u[threadIdx.x] = f[0] + f[1] + f[2] + f[3] + d[0] + d[1] + d[2] + d[3];
    q[threadIdx.x] = e[0] + e[1];
}";

/// The matrix instructions that only sm_90a has.
const WGMMA: &str = "
extern \"C\" __global__ void k(long long* p, float* g) {
    float f[4] = {g[0], g[1], g[2], g[3]}; int z[4] = {0, 0, 0, 0};
    asm volatile(\"{.reg .pred p; setp.ne.b32 p,1,0; wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%0,%1,%2,%3},%4,%5,p,1,1,0,0;}\"
        : \"+f\"(f[0]), \"+f\"(f[1]), \"+f\"(f[2]), \"+f\"(f[3]) : \"l\"(p[0]), \"l\"(p[1]));
    asm volatile(\"{.reg .pred p; setp.ne.b32 p,1,0; wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%0,%1,%2,%3},%4,%5,p,1,1;}\"
        : \"+f\"(f[0]), \"+f\"(f[1]), \"+f\"(f[2]), \"+f\"(f[3]) : \"l\"(p[0]), \"l\"(p[1]));
    asm volatile(\"{.reg .pred p; setp.ne.b32 p,1,0; wgmma.mma_async.sync.aligned.m64n8k32.s32.s8.s8 {%0,%1,%2,%3},%4,%5,p;}\"
        : \"+r\"(z[0]), \"+r\"(z[1]), \"+r\"(z[2]), \"+r\"(z[3]) : \"l\"(p[0]), \"l\"(p[1]));
    asm volatile(\"wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0;\" ::: \"memory\");
    g[0] = f[0] + f[1] + f[2] + f[3] + z[0] + z[1] + z[2] + z[3];
}";

#[test]
fn counts_are_those_of_the_listing() {
    let toolkit = match toolkit::get() {
        Ok(toolkit) => toolkit,
        Err(reason) => {
            let required = std::env::var("NEPHRON_REQUIRE").is_ok_and(|r| r.contains("cuda-compile"));
            assert!(!required, "cuda-compile is required: {reason}");
            eprintln!("SKIPPED on cuda-compile: {reason}");
            return;
        }
    };
    let nvdisasm = toolkit::root().expect("a toolkit").join("bin/nvdisasm");
    if !nvdisasm.is_file() && std::env::var("NEPHRON_REQUIRE").is_err() {
        eprintln!("SKIPPED on cuda-compile: no {}", nvdisasm.display());
        return;
    }
    let folder = std::env::temp_dir().join(format!("nephron-machine-code-{}", std::process::id()));
    std::fs::create_dir(&folder).expect("a folder of this test");
    let file = folder.join("kernel.cubin");
    for arch in ARCHITECTURES {
        // The matrix instructions that each must have, at least, and the wide loads.
        let cases = [(FFMA, 0, 2), (MATRIX, 4, 1), (WGMMA, 3, 0)];
        for (source, matrix, wide_loads) in cases {
            if source == WGMMA && arch.version < 90 {
                continue;
            }
            let options = [format!("--gpu-architecture={}", arch.name), "-lineinfo".into()];
            let Ok(compiled) = toolkit.nvrtc.compile(source, &options) else { panic!("does not compile: {source}") };
            std::fs::write(&file, &compiled.cubin).expect("the cubin is written");
            let output = Command::new(&nvdisasm).arg("--print-code").arg(&file).output().expect("nvdisasm runs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let listed = count_listing(&String::from_utf8_lossy(&output.stdout));
            let counts = count(&compiled.cubin, arch).expect("the cubin is understood");
            assert_eq!(counts, listed, "{}: {source}", arch.name);
            assert!(counts.matrix >= matrix && counts.wide_loads >= wide_loads, "{counts:?}: {source}");
            assert!(source == WGMMA || counts.loop_multiplications >= 4, "{counts:?}: {source}");
        }
    }
    std::fs::remove_dir_all(&folder).expect("the folder is removed");
}

#[test]
fn what_is_no_cubin_is_not_understood() {
    for bytes in [
        &b""[..],
        b"\x7fELF\x02\x01",
        &[0x7f; 64],
        b"\x7fELF\x01\x01 and more bytes than a header of an ELF file has, which end.",
    ] {
        assert_eq!(count(bytes, ARCHITECTURES[0]), None);
    }
}

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
fn the_listings_innermost_loop_with_the_matrix_instructions_is_found() {
    let counts = Counts { matrix: 2, wide_loads: 2, loop_instructions: 3, loop_multiplications: 2 };
    assert_eq!(count_listing(LISTING), counts);
    let without = LISTING.replace("HMMA.16816.F32", "FFMA").replace("IMMA", "");
    assert_eq!((count_listing(&without).matrix, count_listing(&without).loop_multiplications), (0, 2));
}
