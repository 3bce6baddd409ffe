//! What the parser reads: whole files, the awkward corners of the grammar, and limits.

use foveate_dsl::ast::*;
use foveate_dsl::{SourceMap, parse, render::render};

const SPATIAL_PRIOR: &str = r#"foveate 1

import Linear from prelude

/// Attention with a learned spatial prior.
/// Second line.
module SpatialPriorAttention(C, H, grid: (Gy, Gx), qkv_bias = false) {
    require C % H == 0
    axis Grid = Gy x Gx
    axis Tokens = Cls | Grid
    axis D = C / H
    x = Linear(C, C)
    index i, j: Grid

    qk   = Linear(C, 2 * C, bias: qkv_bias)  // trailing
    flat v = Linear(C, C, bias: qkv_bias)
    w2: param[C, 1] = zeros, no_decay
    m : state[H]    = ones
    for s in 0..3 { block{s}.{s + 1}.fc = Linear(C, C) }
    if form == sum { a = Linear(C, C) } else if form == prod { b = Linear(C, C) } else { }

    forward(x[Grid, C], t: label[classes]) -> (y[Grid, C], loss[]) {
        (q[i, h, d], k[i, h, d]) = qk(x)[i, (2, h, d)]
        n = form
        (a, b) = split(x)
        prior[h, i, j] = b2[h] + sum(d) w2[(h, d), 0] * hidden[h, d, i, j]
        score[h, i, j in window(i, 3, 3, pad: zero)] = prior[h, i, j] * (sum(d) q[i, h, d] * k[j, h, d]) / sqrt(D)
        y[i, (h, d)] = sum(j where abs(i.row - j.row) < 4) softmax(j)(score[h, i, j]) * value[j, h, d]
        for m in 0..depth{ x = block{m}(x) }
        if training{ update m[c] = 0.9 * m[c] - -x ^ -2 ^ 3 }
        expose score
        expose z[i] = if i.row == 0 and not a or b then -1e-4 else maximum(a, b: 28x28) div 2
        loss[] = sum_of(x[.., 0]) + max(j) x[j]
        return proj(y), loss
    }
}
fn gelu(x) = 0.5 * x * (1 + erf(x / sqrt(2)))
recipe r { model: M(depth: 4) epochs: 15 batch: 64, data { path: "a\"b", image: 28x28 } l: [1, 2, 3] }
"#;

fn read(text: &str) -> File {
    let (file, diagnostics) = parse(0, text);
    let mut sources = SourceMap::new();
    sources.add("test.fov", text);
    assert!(diagnostics.is_empty(), "{}", render(&diagnostics, &sources, false));
    file
}

#[test]
fn a_whole_file() {
    let file = read(SPATIAL_PRIOR);
    assert_eq!(file.items.len(), 3);
    let Item::Module(module) = &file.items[0] else { panic!("a module comes first") };
    assert_eq!(module.doc, "Attention with a learned spatial prior.\nSecond line.");
    assert_eq!(module.members.len(), 13);
    let Some(Member::Forward(forward)) = module.members.last() else { panic!("`forward` comes last") };
    assert_eq!(forward.body.len(), 12);
}
