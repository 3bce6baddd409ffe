//! Portable kernels: the smallest golden case of every family on a Vulkan device, outputs and gradients.

use foveate_tests::golden::{CASES, MODELS, named};

#[test]
fn spatial_prior_attention() {
    named("sp_sa_5x5").passes_on("wgpu");
}

#[test]
fn central_attention() {
    named("central_5x7_k3").passes_on("wgpu");
}

#[test]
fn vicinity_attention() {
    named("vicinity_sum_4x6").passes_on("wgpu");
    named("vicinity_prod_4x6").passes_on("wgpu");
}

#[test]
fn spatial_entropy() {
    named("spatial_entropy_noise").passes_on("wgpu");
}

#[test]
#[ignore = "for a graphics processor: it takes minutes in software"]
fn every_golden_tensor() {
    for case in CASES.iter().chain(MODELS.iter()) {
        case.passes_on("wgpu");
    }
}
