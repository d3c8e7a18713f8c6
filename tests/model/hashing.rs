//! Fingerprints of states.

use std::hash::Hasher;

/// Two mixed lanes of 64 bits: among a hundred million states two that share a fingerprint are not to be expected.
pub struct Wide(u64, u64);

impl Default for Wide {
    fn default() -> Wide {
        Wide(0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03)
    }
}

impl Wide {
    fn mix(&mut self, word: u64) {
        let one = u128::from(self.0 ^ word).wrapping_mul(0xa076_1d64_78bd_642f_e703_7ed1_a0b4_28db);
        let two = u128::from(self.1 ^ word.rotate_left(32)).wrapping_mul(0x8ebc_6af0_9c88_c6e3_5899_65cc_7537_4cc3);
        self.0 = (one as u64) ^ ((one >> 64) as u64) ^ self.1;
        self.1 = (two as u64) ^ ((two >> 64) as u64);
    }

    pub fn wide(mut self) -> u128 {
        self.mix(0x2d35_8dcc_aa6c_78a5);
        u128::from(self.0) << 64 | u128::from(self.1)
    }
}

impl Hasher for Wide {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0u8; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            let word = u64::from_le_bytes(word);
            // Most of a key id is empty.
            if word != 0 {
                self.mix(word ^ (chunk.len() as u64) << 56);
            }
        }
    }

    fn write_u8(&mut self, word: u8) {
        self.mix(u64::from(word) + 1);
    }

    fn write_u64(&mut self, word: u64) {
        self.mix(word);
    }

    fn write_usize(&mut self, word: usize) {
        self.mix(word as u64);
    }
}

/// The fingerprints are hashes already.
#[derive(Default)]
pub struct Ready(u64);

impl Hasher for Ready {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut word = [0u8; 8];
        let half = bytes.len().min(8);
        word[..half].copy_from_slice(&bytes[..half]);
        self.0 = u64::from_le_bytes(word);
    }

    fn write_u128(&mut self, word: u128) {
        self.0 = word as u64;
    }
}
