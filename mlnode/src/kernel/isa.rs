//! Instruction sets.

/// What the kernels are compiled for; chosen when the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// [`Self::Avx512`] with its dot products of bf16.
    Avx512Bf16,
    /// x86-64 with AVX-512 (F, BW, DQ, VL).
    Avx512,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// Plain Rust: fast where the target has fused multiply-add of its own, right everywhere.
    Portable,
}

impl Isa {
    /// The best that this processor has.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = std::arch::is_x86_feature_detected!("avx2")
                && std::arch::is_x86_feature_detected!("fma")
                && std::arch::is_x86_feature_detected!("f16c");
            let avx512 = std::arch::is_x86_feature_detected!("avx512f")
                && std::arch::is_x86_feature_detected!("avx512bw")
                && std::arch::is_x86_feature_detected!("avx512dq")
                && std::arch::is_x86_feature_detected!("avx512vl");
            if avx2 && avx512 && std::arch::is_x86_feature_detected!("avx512bf16") {
                return Self::Avx512Bf16;
            }
            if avx2 && avx512 {
                return Self::Avx512;
            }
            if avx2 {
                return Self::Avx2;
            }
        }
        Self::Portable
    }

    /// All that this processor has, the best first.
    pub fn available() -> Vec<Self> {
        let all = [Self::Avx512Bf16, Self::Avx512, Self::Avx2, Self::Portable];
        let best = Self::detect();
        all.into_iter().skip_while(|isa| *isa != best).collect()
    }
}
