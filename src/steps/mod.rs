//! The five steps.
