//! Every attention at awkward and large sizes: compiling never panics; at small sizes values are checked too.

use crate::derive::{Case, case};

/// How the tokens of an item are given.
enum Tokens {
    Grid,
    Line,
    Two,
}

const ITEMS: &[(&str, &str, Tokens, &str)] = &[
    ("attention/sp_sa.fov", "SpatialPriorAttention", Tokens::Grid, ""),
    ("attention/mcsa.fov", "CentralAttention", Tokens::Grid, ""),
    ("attention/vicinity.fov", "VicinityAttention", Tokens::Grid, ""),
    ("attention/vicinity.fov", "VicinityAttentionQuadratic", Tokens::Grid, ""),
    ("attention/vicinity.fov", "VicinityAttention", Tokens::Grid, "form=product"),
    ("attention/vicinity.fov", "VicinityAttentionQuadratic", Tokens::Grid, "form=product"),
    ("losses/spatial_entropy.fov", "SpatialEntropy", Tokens::Grid, ""),
    ("attention/alibi_2d.fov", "Alibi2dAttention", Tokens::Grid, ""),
    ("attention/swin_bias.fov", "SwinAttention", Tokens::Grid, ""),
    ("attention/neighbourhood.fov", "NeighbourhoodAttention", Tokens::Grid, ""),
    ("attention/full.fov", "SelfAttention", Tokens::Line, ""),
    ("attention/cosine.fov", "CosineAttention", Tokens::Line, ""),
    ("attention/causal_window.fov", "CausalWindowAttention", Tokens::Line, ""),
    ("attention/sigmoid.fov", "SigmoidAttention", Tokens::Line, ""),
    ("attention/elu_linear.fov", "EluLinearAttention", Tokens::Line, ""),
    ("attention/cross.fov", "CrossAttention", Tokens::Two, ""),
];

/// All items on a grid (or as many tokens in a line) with `c` channels in `h` heads.
fn cases(gy: usize, gx: usize, c: usize, h: usize) -> Vec<Case> {
    let one = |&(file, item, ref tokens, more): &(&'static str, &'static str, Tokens, &str)| {
        let n = gy * gx;
        let size = match tokens {
            Tokens::Grid => format!("grid={gy}x{gx}"),
            Tokens::Line => format!("N={n}"),
            Tokens::Two => format!("N={n} M={} K={}", n + 3, c + 1),
        };
        // Windows that shift inward have to fit.
        let k = if item.starts_with("Neighbourhood") {
            format!("k={}", if gy.min(gx) < 3 { 1 } else { 3 })
        } else {
            String::new()
        };
        let channels = if file.starts_with("losses") { String::new() } else { format!("C={c}") };
        case(file, item, &format!("{channels} H={h} {size} {k} {more}"))
    };
    ITEMS.iter().map(one).collect()
}

#[test]
fn values_stay_at_small_sizes() {
    for (gy, gx, c, h) in [(1, 1, 4, 2), (1, 7, 4, 1), (3, 3, 12, 2), (4, 6, 8, 2), (7, 5, 12, 3)] {
        for case in cases(gy, gx, c, h) {
            case.derive().agrees(&format!("{case:?}"));
        }
    }
}

#[test]
fn any_size_compiles() {
    for (gy, gx, c, h) in
        [(1, 1, 64, 2), (1, 7, 64, 2), (13, 17, 96, 3), (14, 14, 384, 6), (56, 56, 64, 2), (31, 7, 72, 3)]
    {
        for case in cases(gy, gx, c, h) {
            case.derive();
        }
    }
}
