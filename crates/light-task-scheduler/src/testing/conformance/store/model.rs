//! To come.
use super::StoreHarness;
/// To come.
pub fn check<H: StoreHarness>(_paused: bool, _harness: impl Fn() -> H) {}
