use crate::secret::{Kid, NoRandomness};

/// Where chance decides something: the names of new keys, and when a rotation is due. A simulation plays it again from a seed.
///
/// Secrets, nonces and sealing are not drawn from it: they come from the operating system alone, and nothing depends on them.
pub trait Chance: Send + Sync {
    /// The key id of a new secret.
    ///
    /// # Errors
    /// If the operating system gives no random bytes.
    fn kid(&self) -> Result<Kid, NoRandomness>;

    /// A number in 0..1.
    fn draw(&self) -> f64;
}

/// The operating system's random numbers.
pub struct SystemChance;

impl Chance for SystemChance {
    fn kid(&self) -> Result<Kid, NoRandomness> {
        Kid::generate()
    }

    fn draw(&self) -> f64 {
        rand::random()
    }
}
