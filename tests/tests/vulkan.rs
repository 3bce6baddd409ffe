//! Portable kernels: every golden tensor on a graphics device, outputs and gradients. In software it takes some minutes, most of them for compiling.

use foveate_tests::golden::{CASES, MODELS};

#[test]
fn every_golden_tensor() {
    for case in CASES.iter().chain(MODELS.iter()) {
        case.passes_on("wgpu");
    }
}
