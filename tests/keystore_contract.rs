//! What every keystore does, whatever is behind it; and what the file and the program do besides.

mod keystore;
mod nobody;
