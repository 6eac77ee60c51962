//! Bytes a second of each primitive on one thread, as `bkp` calls it.
//!
//! The crates choose their code when they run, by what the processor says that it can. Whether they did is told by the pace alone: no
//! code without the instructions comes near the minimum here.

use std::time::Instant;

use aes::cipher::{KeyIvInit, StreamCipher};
use bkp::id::BlobId;
use bkp::seal::MasterKey;
use poly1305::Poly1305;
use poly1305::universal_hash::KeyInit;

/// As long as most chunks.
const BYTES: usize = 1 << 20;

/// Rounds, of which the fastest counts: others share the machine.
const ROUNDS: usize = 50;

struct Primitive {
    name: &'static str,
    /// What the processor must have, and whether it does.
    wants: &'static str,
    has: bool,
    /// Gigabytes a second that code without it never reaches.
    soft_max: f64,
    pace: f64,
}

/// Prints the paces, and fails where the processor has what a crate does not use.
pub(crate) fn check() -> anyhow::Result<()> {
    let mut bytes = vec![0x5a_u8; BYTES];
    let mut cipher = ctr::Ctr128BE::<aes::Aes256>::new(&[1; 32].into(), &[2; 16].into());
    let (key, mut sealed) = (MasterKey::from_bytes(&[3; 64]), Vec::new());
    let (has_sha, has_aes, has_wide) = features();
    let primitives = [
        Primitive {
            name: "SHA-256",
            wants: "SHA extensions",
            has: has_sha,
            soft_max: 0.75,
            pace: pace(|| {
                std::hint::black_box(BlobId::of(&bytes));
            }),
        },
        Primitive {
            name: "Poly1305",
            wants: "256-bit vectors",
            has: has_wide,
            soft_max: 0.75,
            pace: pace(|| {
                std::hint::black_box(Poly1305::new(&[4; 32].into()).compute_unpadded(&bytes));
            }),
        },
        Primitive {
            name: "AES-256-CTR",
            wants: "AES instructions",
            has: has_aes,
            soft_max: 0.75,
            pace: pace(|| cipher.apply_keystream(&mut bytes)),
        },
        Primitive {
            name: "encrypt and authenticate",
            wants: "AES instructions",
            has: has_aes,
            soft_max: 0.3,
            pace: pace(|| {
                sealed.clear();
                let _ = std::hint::black_box(key.encrypt_into(&bytes, &mut sealed));
            }),
        },
    ];
    for primitive in &primitives {
        let Primitive { name, wants, has, pace, .. } = primitive;
        println!("{name}: {pace:.2} GB/s on one thread; {wants}: {}", if *has { "there" } else { "not there" });
    }
    match primitives.iter().find(|primitive| primitive.has && primitive.pace < primitive.soft_max) {
        Some(Primitive { name, wants, pace, .. }) => {
            anyhow::bail!("{name} runs at {pace:.2} GB/s: the processor has {wants}, and they are not used")
        }
        None => Ok(()),
    }
}

fn pace(mut work: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        work();
        best = best.min(start.elapsed().as_secs_f64());
    }
    1e-9 * f64::from(1 << 20) / best
}

/// Tells whether the processor has instructions for SHA-256, for AES, and wide vectors.
#[cfg(target_arch = "x86_64")]
fn features() -> (bool, bool, bool) {
    let has_aes = std::arch::is_x86_feature_detected!("aes");
    (std::arch::is_x86_feature_detected!("sha"), has_aes, std::arch::is_x86_feature_detected!("avx2"))
}

#[cfg(target_arch = "aarch64")]
fn features() -> (bool, bool, bool) {
    let has_sha = std::arch::is_aarch64_feature_detected!("sha2");
    (has_sha, std::arch::is_aarch64_feature_detected!("aes"), false)
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn features() -> (bool, bool, bool) {
    (false, false, false)
}
