//! When a webhook is due.

#[derive(Debug, Clone)]
pub struct Window;
#[derive(Debug, Clone)]
pub struct Cron;
