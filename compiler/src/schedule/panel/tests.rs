//! Contractions through panels, against the interpreter.

use crate::ir::{BinaryOp, Elem, Expr, Index, Pred, UnaryOp, VarId};
use crate::loops::{Kernel, Stmt as Loop};
use crate::schedule::{Facts, schedule};
use crate::testing::{Make, arguments, check_schedule, rd};

/// Panels of little memory, so that small sums come in chunks too.
fn facts() -> Facts {
    Facts { lanes: 16, local_bytes: 32 << 10, registers: 29, ..Facts::USUAL }
}

/// Checks the program's schedule on several devices, and that its kernels hold what they read in local arrays, so many of them.
fn holds(m: Make, arrays: usize) {
    let program = m.program();
    let graph = schedule(&program, &facts());
    let locals: usize = graph.kernels.iter().map(|k| k.locals.len()).sum();
    assert_eq!(locals, arrays, "{}", graph.kernels.iter().map(|k| k.to_string()).collect::<String>());
    check_schedule(&program, &arguments(&program));
}

/// `y[i, j] = act(b[j] + sum(k) x w)`, the operands laid out as asked.
fn product(n: usize, o: usize, c: usize, down: bool, turned: bool) -> Make {
    let mut m = Make::new();
    let x = m.input("x", &if down { [c, n] } else { [n, c] });
    let (w, b) = (m.param("w", &if turned { [o, c] } else { [c, o] }), m.param("b", &[o]));
    let (i, j, k) = (m.var(n), m.var(o), m.var(c));
    let left = if down { rd(x, &[k, i]) } else { rd(x, &[i, k]) };
    let right = if turned { rd(w, &[j, k]) } else { rd(w, &[k, j]) };
    let sum = m.def("acc", &[i, j], Expr::sum(vec![k], Pred::True, Expr::mul(left, right)));
    let shifted = Expr::add(rd(sum, &[i, j]), rd(b, &[j]));
    let y = m.def("y", &[i, j], Expr::unary(UnaryOp::Tanh, shifted));
    m.result(y);
    m
}

#[test]
fn products_of_any_layout() {
    for (n, o, c) in [(61, 50, 33), (64, 48, 32), (47, 100, 9), (113, 17, 40)] {
        for down in [false, true] {
            // Rows of whole vectors are held too.
            holds(product(n, o, c, down, false), if down && n % 16 == 0 { 2 } else { 1 });
            // Taken apart by the lanes, a panel pays only if it serves many tiles.
            let turned = product(n, o, c, down, true).program();
            check_schedule(&turned, &arguments(&turned));
        }
    }
}

#[test]
fn a_long_sum_comes_in_chunks() {
    for (n, o, c, down, arrays) in
        [(70, 64, 1031, true, 2), (64, 96, 777, true, 3), (112, 64, 600, true, 3), (60, 48, 900, false, 2)]
    {
        holds(product(n, o, c, down, false), arrays);
    }
}

#[test]
fn rows_are_taken_along_for_several_panels() {
    // Panels that are all of an item, or parts of more; rows of whole tiles, and those of which the last tile overlaps.
    for (n, o, c) in [(768, 96, 300), (96, 768, 300), (80, 208, 130), (112, 192, 517), (608, 80, 97)] {
        let program = product(n, o, c, true, false).program();
        let text: String = schedule(&program, &facts()).kernels.iter().map(|k| k.to_string()).collect();
        assert!(text.contains("rows"), "{text}");
        check_schedule(&program, &arguments(&program));
    }
}

#[test]
fn weights_with_their_inputs_side_by_side_fill_it_in_squares() {
    // Whole squares, one that overlaps the one before it, less than one, and chunks.
    for (n, o, c, squares) in [(600, 48, 32, true), (700, 50, 39, true), (600, 48, 12, false), (2000, 48, 1024, true)] {
        let program = product(n, o, c, false, true).program();
        let text: String = schedule(&program, &facts()).kernels.iter().map(|k| k.to_string()).collect();
        assert!(text.contains("panel") && text.contains("zip") == squares, "{text}");
        check_schedule(&program, &arguments(&program));
    }
}

#[test]
fn a_sum_over_several_variables_comes_in_blocks_of_one() {
    let (b, r, s, n, o) = (3, 5, 67, 50, 64);
    // In one order they are one variable.
    for same in [true, false] {
        let mut m = Make::new();
        let x = m.input("x", &[b, r, s, n]);
        let z = m.input("z", &if same { [b, r, s, o] } else { [b, s, r, o] });
        let [i, j, p, q, t] = [n, o, b, r, s].map(|size| m.var(size));
        let right = if same { rd(z, &[p, q, t, j]) } else { rd(z, &[p, t, q, j]) };
        let y = m.def("y", &[i, j], Expr::sum(vec![p, q, t], Pred::True, Expr::mul(rd(x, &[p, q, t, i]), right)));
        m.result(y);
        holds(m, 2);
    }
}

/// How long a kernel is, as it is written.
fn lines(kernel: &Kernel) -> usize {
    kernel.to_string().lines().count()
}

#[test]
fn tokens_of_a_grid_are_one_line() {
    let (grid, c, o) = ([3, 5, 7], 72, 48);
    let all: usize = grid.iter().product();
    let kernels = |shape: &[usize]| {
        let mut m = Make::new();
        let with = |n: usize| shape.iter().copied().chain([n]).collect::<Vec<_>>();
        let (x, w, z) = (m.input("x", &with(c)), m.param("w", &[c, o]), m.input("z", &with(o)));
        let at: Vec<VarId> = shape.iter().map(|&n| m.var(n)).collect();
        let (j, k) = (m.var(o), m.var(c));
        let with = |v: VarId| at.iter().copied().chain([v]).collect::<Vec<_>>();
        let product = Expr::sum(vec![k], Pred::True, Expr::mul(rd(x, &with(k)), rd(w, &[k, j])));
        let y = m.def("y", &with(j), Expr::add(product, rd(z, &with(j))));
        // Down the tokens too.
        let (k2, j2) = (m.var(c), m.var(o));
        let down = Expr::mul(rd(x, &with(k2)), rd(z, &with(j2)));
        let d = m.def("d", &[k2, j2], Expr::sum(at.clone(), Pred::True, down));
        [y, d].into_iter().for_each(|t| m.result(t));
        let program = m.program();
        check_schedule(&program, &arguments(&program));
        let graph = schedule(&program, &facts());
        graph.kernels.iter().map(|k| (k.items, k.regs.len(), k.locals.clone(), lines(k))).collect::<Vec<_>>()
    };
    assert_eq!(kernels(&grid), kernels(&[all]));
}

#[test]
fn a_grid_with_a_border_stays_one() {
    let (r, s, c, o) = (6, 9, 16, 32);
    let mut m = Make::new();
    let (x, w) = (m.input("x", &[r, s, c]), m.param("w", &[c, 3, o]));
    let [i, l, j, k, t] = [r, s, o, c, 3].map(|size| m.var(size));
    let column = Index::from(l).add(&t.into()).plus(-1);
    let pixel = Expr::read_or_zero(Elem::F32, x, vec![i.into(), column, k.into()]);
    let y = Expr::sum(vec![t, k], Pred::True, Expr::mul(pixel, rd(w, &[k, t, j])));
    let y = m.def("y", &[i, l, j], y);
    m.result(y);
    holds(m, 1);
}

#[test]
fn a_batch_of_products_has_panels_of_its_own() {
    let (b, n, o, c) = (3, 41, 48, 24);
    let mut m = Make::new();
    let (x, z) = (m.input("x", &[b, n, c]), m.input("z", &[b, c, o]));
    let [p, i, j, k] = [b, n, o, c].map(|size| m.var(size));
    let sum = Expr::sum(vec![k], Pred::True, Expr::mul(rd(x, &[p, i, k]), rd(z, &[p, k, j])));
    let y = m.def("y", &[p, i, j], sum);
    m.result(y);
    holds(m, 1);
}

#[test]
fn a_convolution_with_a_border() {
    let (g, c, o) = (11, 8, 32);
    let mut m = Make::new();
    let (x, w) = (m.input("x", &[g, g, c]), m.input("w", &[3, 3, c, o]));
    let [row, col, j, u, v, k] = [g, g, o, 3, 3, c].map(|size| m.var(size));
    let place = |a: VarId, b: VarId| Index::from(a).add(&b.into()).plus(-1);
    let inside = Expr::read_or_zero(Elem::F32, x, vec![place(row, u), place(col, v), k.into()]);
    let body = Expr::mul(rd(w, &[u, v, k, j]), inside);
    let y = m.def("y", &[row, col, j], Expr::sum(vec![u, v, k], Pred::True, body));
    m.result(y);
    holds(m, 1);
}

#[test]
fn a_guard_is_part_of_a_factor() {
    let (n, o, c) = (40, 48, 30);
    let mut m = Make::new();
    let (x, z) = (m.input("x", &[n, c]), m.input("z", &[c, o]));
    let [i, j, k] = [n, o, c].map(|size| m.var(size));
    let causal = Pred::NonNeg(Index::from(i).sub(&k.into()));
    let half = Expr::binary(BinaryOp::Mul, rd(x, &[i, k]), Expr::constant(Elem::F32, 0.5));
    let y = m.def("y", &[i, j], Expr::sum(vec![k], causal, Expr::mul(half, rd(z, &[k, j]))));
    m.result(y);
    holds(m, 1);
}

#[test]
fn no_panel_where_memory_is_scarce_or_nothing_is_shared() {
    let scarce = Facts { local_bytes: 4 << 10, lanes: 4, ..facts() };
    let graph = schedule(&product(64, 64, 64, false, false).program(), &scarce);
    assert!(graph.kernels.iter().all(|k| k.locals.is_empty()));
    // One row: every element of the panel would be read once.
    let graph = schedule(&product(1, 64, 64, false, false).program(), &facts());
    assert!(graph.kernels.iter().all(|k| k.locals.is_empty() && !k.body.is_empty()));
    assert!(graph.kernels.iter().any(|k| k.body.iter().any(|s| matches!(s, Loop::For { .. }))));
}

#[test]
fn what_the_last_sum_leaves_alone_scales_it() {
    for (n, parts, e, o) in [(50, 4, 40, 48), (47, 3, 600, 48), (64, 2, 97, 32)] {
        let mut m = Make::new();
        let (f, k, w) = (m.input("f", &[n, parts]), m.input("k", &[n, e]), m.input("w", &[parts, e, o]));
        let [i, t, p, j] = [n, parts, e, o].map(|size| m.var(size));
        let body = Expr::mul(Expr::mul(rd(f, &[i, t]), rd(k, &[i, p])), rd(w, &[t, p, j]));
        // A short sum beside it.
        let [u] = [parts].map(|size| m.var(size));
        let beside = Expr::sum(vec![u], Pred::True, Expr::mul(rd(f, &[i, u]), rd(w, &[u, u, j])));
        let y = m.def("y", &[i, j], Expr::add(beside, Expr::sum(vec![t, p], Pred::True, body)));
        m.result(y);
        holds(m, if parts * e > 1000 { 2 } else { 1 });
    }
}

#[test]
fn what_changes_from_tile_to_tile_has_panels_of_its_own() {
    let (n, parts, e, o) = (81, 3, 48, 40);
    let mut m = Make::new();
    let (f, k, v) = (m.input("f", &[n, parts]), m.input("k", &[n, e]), m.input("v", &[n, o]));
    let [i, t, p, j] = [n, parts, e, o].map(|size| m.var(size));
    let body = Expr::mul(Expr::mul(rd(f, &[i, t]), rd(k, &[i, p])), rd(v, &[i, j]));
    let y = m.def("y", &[t, p, j], Expr::sum(vec![i], Pred::True, body));
    m.result(y);
    holds(m, 3);
}

#[test]
fn panels_that_differ_in_a_feature_share_their_rows() {
    for (n, parts, e, o) in [(97, 4, 48, 48), (131, 3, 48, 64), (64, 5, 48, 17), (83, 2, 32, 40)] {
        let mut m = Make::new();
        let (f, x, y) = (m.input("f", &[n, parts]), m.input("x", &[n, e]), m.input("y", &[n, o]));
        let [t, i, j, p] = [parts, e, o, n].map(|size| m.var(size));
        let product = Expr::mul(Expr::mul(rd(f, &[p, t]), rd(x, &[p, i])), rd(y, &[p, j]));
        let s = m.def("s", &[t, i, j], Expr::sum(vec![p], Pred::True, product));
        m.result(s);
        let program = m.program();
        if (e, o) == (48, 48) {
            let graph = schedule(&program, &Facts { local_bytes: 96 << 10, ..facts() });
            assert_eq!((graph.kernels.len(), graph.kernels[0].items), (1, 2), "{}", graph.kernels[0]);
        }
        check_schedule(&program, &arguments(&program));
    }
}

#[test]
fn the_next_chunk_is_brought_near_while_one_is_computed() {
    let kernels = |n: usize| {
        let program = product(64, 96, n, true, false).program();
        let graph = schedule(&program, &facts());
        graph.kernels.iter().map(|k| k.to_string()).collect::<String>()
    };
    // A line of each factor; small ones are near anyway.
    assert_eq!(kernels(3001).matches("prefetch").count(), 2);
    assert_eq!(kernels(300).matches("prefetch").count(), 0);
    let program = product(64, 96, 3001, true, false).program();
    check_schedule(&program, &arguments(&program));
}

#[test]
fn parts_of_rows_leave_no_unit_without_work() {
    // 1280 outputs in tiles of 13 would be seven items for two units.
    let (tokens, inputs, outputs) = (400, 160, 1280);
    let mut m = Make::new();
    let (d, x) = (m.input("d", &[tokens, outputs]), m.input("x", &[tokens, inputs]));
    let [o, i, t] = [outputs, inputs, tokens].map(|size| m.var(size));
    let product = Expr::mul(rd(d, &[t, o]), rd(x, &[t, i]));
    let w = m.def("w", &[o, i], Expr::sum(vec![t], Pred::True, product));
    m.result(w);
    let graph = schedule(&m.program(), &Facts { units: 2, local_bytes: 96 << 10, ..facts() });
    assert!(graph.kernels[0].items.is_multiple_of(2), "{}", graph.kernels[0]);
}
