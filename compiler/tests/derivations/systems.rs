//! The four published systems: the algorithm of each, derived from its plain text.

use crate::derive::{Derived, case};

#[test]
fn a_learned_prior_is_a_table_of_offsets() {
    let d = case("attention/sp_sa.fov", "SpatialPriorAttention", "C=384 H=6 grid=14x14").derive();
    assert_eq!(d.algorithms("prior"), ["offset table (2*14-1)(2*14-1) for each h"]);
    d.stores_no(&[14, 14, 14, 14]);
    // The gradient is collected by offset too, and what lies below the table works on offsets only.
    let tables = |name: &str| {
        let offsets = |shape: &[usize]| shape.iter().filter(|&&n| n == 27).count() == 2 && !shape.contains(&196);
        d.temporaries().any(|b| b.name.starts_with(name) && offsets(&b.shape))
    };
    assert!(tables("prior.offsets") && tables("d.prior.offsets"), "{}", d.program);
}

#[test]
fn softmax_attention_keeps_no_scores() {
    let d = case("attention/full.fov", "SelfAttention", "C=384 H=6 N=197").derive();
    d.stores_no(&[197, 197]);
    let kernels = d.explanation().kernels;
    let fused = |parts: &[&str]| {
        kernels.iter().any(|k| parts.iter().all(|p| k.sites.iter().any(|s| s.split(", ").any(|s| s.ends_with(p)))))
    };
    assert!(fused(&["y.softmax.max", "y.softmax.total", "y.sum"]), "{kernels:?}");
}

#[test]
fn central_attention_is_a_loop_over_its_window() {
    let d = |grid| case("attention/mcsa.fov", "CentralAttention", &format!("C=64 H=2 grid={grid}")).derive();
    let small = d("14x14");
    assert_eq!(small.algorithms("y"), ["window of 9 (3 x 3)"]);
    small.stores_no(&[14, 14, 14, 14]);
    grows_with_the_tokens(&small, &d("28x28"));
}

#[test]
fn vicinity_attention_is_linear() {
    for item in ["VicinityAttention", "VicinityAttentionQuadratic"] {
        for form in ["sum", "product"] {
            let d = |grid| case("attention/vicinity.fov", item, &format!("C=64 H=2 grid={grid} form={form}")).derive();
            let small = d("14x14");
            if item == "VicinityAttentionQuadratic" {
                let rank = if form == "sum" { "linear, rank 4" } else { "linear, rank" };
                let found = small.algorithms("sum");
                assert!(found.iter().any(|a| a.starts_with(rank)), "{item}, {form}: {found:?}");
            }
            small.stores_no(&[14, 14, 14, 14]);
            grows_with_the_tokens(&small, &d("28x28"));
        }
    }
}

#[test]
fn the_spatial_entropy_of_a_row_computes_that_row() {
    let d = case("demo/fashion.fov", "FashionLoss", "").derive();
    // 1 + 7 * 7 tokens: all pairs are computed on the fly, and the loss has a row for each head.
    d.stores_no(&[50, 50]);
    let shape = [2, 4, 50];
    let row = |name: &str| d.temporaries().any(|b| b.name.ends_with(name) && b.shape == shape);
    assert!(row("attn.score.at0") && row("d.net.last.attn.score.sum.at0"), "{}", d.program);
}

/// Asserts that four times as many tokens take about four times as much work, not sixteen.
pub fn grows_with_the_tokens(small: &Derived, large: &Derived) {
    let ratio = large.flops() / small.flops();
    assert!((3.0..4.8).contains(&ratio), "work grows by {ratio}\n{}", small.program);
}
