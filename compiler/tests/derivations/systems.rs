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

/// What was decided about memory is said, forward and backward, in `explain --json`.
#[test]
fn fusion_is_told() {
    let fused = |d: &Derived, definition: &str, says: &[&str]| {
        let told = d.told("fusion", definition);
        let ok = told.iter().any(|(fired, text)| *fired && says.iter().all(|s| text.contains(s)));
        assert!(ok, "{definition}: {told:?}\n{:#?}", d.graph.decisions);
        let json = serde_json::to_value(d.explanation()).expect("JSON");
        let algorithms = json["algorithm"].as_array().expect("a list");
        assert!(algorithms.iter().any(|a| a["text"].as_str().is_some_and(|t| says.iter().all(|s| t.contains(s)))));
    };
    let d = case("attention/full.fov", "SelfAttention", "C=64 H=4 N=197").derive();
    let softmax = "softmax over j fused: pairs score.sum[";
    fused(
        &d,
        "y.sum",
        &[softmax, "N 197, N 197] ", "never stored; maximum, sum and weighted sum over j in one kernel"],
    );
    fused(&d, "d.y.part0.part", &["fused: pairs score.sum[", "never stored; weighted sum over i in one kernel"]);
    assert!(d.graph.decisions.iter().all(|d| d.fused), "{:?}", d.graph.decisions);
    let d = case("attention/sp_sa.fov", "SpatialPriorAttention", "C=64 H=4 grid=14x14").derive();
    fused(&d, "y.sum", &[softmax]);
    fused(
        &d,
        "d.prior.offsets.sum",
        &["table by offset: pairs ", "never stored; row by row, each is added at its key"],
    );
    let d = case("attention/swin_bias.fov", "SwinAttention", "C=64 H=4 grid=7x7").derive();
    fused(&d, "d.relative_position_bias_table", &["table by offset"]);
    // One row of scores is all that the loss looks at.
    let d = case("demo/fashion.fov", "FashionLoss", "").derive();
    let told = d.told("row restriction", "attn.score");
    assert!(
        told.iter()
            .any(|(fired, text)| *fired && text == "only row `Cls` of Tokens is read: 400 elements instead of 20000"),
        "{told:?}"
    );
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
