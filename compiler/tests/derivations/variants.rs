//! Attention variants that the same rules have to fit.

use crate::derive::case;
use crate::systems::grows_with_the_tokens;

/// Asserts that neither forward nor backward stores a value for every pair of tokens.
fn stores_no_pairs(file: &'static str, item: &'static str, settings: &str, pair: &[usize]) {
    case(file, item, settings).derive().stores_no(pair);
}

#[test]
fn pairs_are_computed_where_they_are_read() {
    stores_no_pairs("attention/cosine.fov", "CosineAttention", "C=64 H=2 N=83", &[83, 83]);
    stores_no_pairs("attention/sigmoid.fov", "SigmoidAttention", "C=64 H=2 N=83", &[83, 83]);
    stores_no_pairs("attention/cross.fov", "CrossAttention", "C=64 H=2 N=83 M=59 K=48", &[83, 59]);
    for (grid, pair) in [("9x9", [9, 9, 9, 9]), ("13x7", [13, 7, 13, 7])] {
        stores_no_pairs("attention/alibi_2d.fov", "Alibi2dAttention", &format!("C=64 H=2 grid={grid}"), &pair);
        stores_no_pairs("attention/swin_bias.fov", "SwinAttention", &format!("C=64 H=2 grid={grid}"), &pair);
    }
}

#[test]
fn windows_and_feature_maps_are_linear() {
    let line = |file, item, n: usize| case(file, item, &format!("C=64 H=2 N={n}")).derive();
    for (file, item) in
        [("attention/causal_window.fov", "CausalWindowAttention"), ("attention/elu_linear.fov", "EluLinearAttention")]
    {
        let small = line(file, item, 211);
        small.stores_no(&[211, 211]);
        grows_with_the_tokens(&small, &line(file, item, 844));
    }
    let grid = |size: &str| {
        case("attention/neighbourhood.fov", "NeighbourhoodAttention", &format!("C=64 H=2 grid={size} k=3")).derive()
    };
    let small = grid("14x14");
    small.stores_no(&[14, 14, 14, 14]);
    grows_with_the_tokens(&small, &grid("28x28"));
}
