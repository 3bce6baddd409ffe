//! Schedules against formulas, through the loop evaluator.

use super::*;
use crate::ir::{BinaryOp, Pred, UnaryOp};
use crate::loops::eval::BufferData;
use crate::testing::{Make, arguments, attention, check_schedule, fill, rd};

fn facts(lanes: usize) -> Facts {
    Facts { lanes, local_bytes: 49152, ..Facts::USUAL }
}

/// Runs a graph on inputs by name and gives the results by name.
fn execute(g: &KernelGraph, inputs: &[(&str, Vec<f32>)]) -> HashMap<String, Vec<f32>> {
    let args = |role: &ArgRole| match role {
        ArgRole::Input(n) | ArgRole::Param(n) => {
            BufferData::F32(inputs.iter().find(|(name, _)| name == n).expect("an input of that name").1.clone())
        }
        other => panic!("{other:?}"),
    };
    let results = host::run(g, &args).unwrap_or_else(|e| panic!("{e}"));
    let name = |roles: &[ResultRole]| match &roles[0] {
        ResultRole::Output(n) => n.clone(),
        other => panic!("{other:?}"),
    };
    results.into_iter().map(|(roles, d)| (name(&roles), d.as_f32().expect("f32").to_vec())).collect()
}

fn close(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    for (i, (x, y)) in a.iter().zip(b).enumerate() {
        assert!((x - y).abs() < 1e-4 * (1.0 + y.abs()), "element {i}: {x} and {y}");
    }
}

#[test]
fn matrix_product_with_bias() {
    for (n, c, o, lanes) in [(1, 1, 1, 16), (7, 5, 10, 16), (50, 33, 40, 16), (13, 8, 3, 4), (64, 64, 64, 16)] {
        let mut m = Make::new();
        let (x, w, b) = (m.input("x", &[n, c]), m.param("w", &[o, c]), m.param("b", &[o]));
        let (i, j, k) = (m.var(n), m.var(o), m.var(c));
        let sum = Expr::sum(vec![k], Pred::True, Expr::mul(rd(x, &[i, k]), rd(w, &[j, k])));
        let acc = m.def("acc", &[i, j], sum);
        let y = m.def("y", &[i, j], Expr::add(rd(acc, &[i, j]), rd(b, &[j])));
        m.result(y);
        let g = schedule(&m.program(), &facts(lanes));
        let (xs, ws, bs) = (fill(n * c, 1), fill(o * c, 2), fill(o, 3));
        let out = execute(&g, &[("x", xs.clone()), ("w", ws.clone()), ("b", bs.clone())]);
        let want: Vec<f32> = (0..n * o)
            .map(|p| bs[p % o] + (0..c).map(|k| xs[p / o * c + k] * ws[p % o * c + k]).sum::<f32>())
            .collect();
        close(&out["y"], &want);
    }
}

#[test]
fn attention_is_one_kernel_without_a_pair_tensor() {
    let long = [1, 4, 8, 16].map(|lanes| (1, (5, 7), 2, 20, lanes));
    let odd = [4, 8, 16].map(|lanes| (1, (1, 37), 1, 17, lanes));
    for (b, n, h, d, lanes) in [
        (2, (5, 5), 3, 4, 16),
        (1, (4, 7), 2, 3, 8),
        (2, (1, 3), 1, 2, 4),
        (1, (7, 7), 2, 8, 16),
        (1, (4, 8), 1, 32, 16),
    ]
    .into_iter()
    .chain(long)
    .chain(odd)
    {
        let mut m = Make::new();
        let (y, _) = attention(&mut m, b, n, h, d);
        m.result(y);
        let g = schedule(&m.program(), &facts(lanes));
        let t = n.0 * n.1;
        let len = b * t * h * d;
        let (q, k, v) = (fill(len, 1), fill(len, 2), fill(len, 3));
        let out = execute(&g, &[("q", q.clone()), ("k", k.clone()), ("v", v.clone())]);
        let at = |b: usize, i: usize, hh: usize, dd: usize| ((b * t + i) * h + hh) * d + dd;
        let mut want = vec![0f32; len];
        for bb in 0..b {
            for hh in 0..h {
                for i in 0..t {
                    let s: Vec<f32> = (0..t)
                        .map(|j| {
                            (0..d).map(|x| q[at(bb, i, hh, x)] * k[at(bb, j, hh, x)]).sum::<f32>() / (d as f32).sqrt()
                        })
                        .collect();
                    let z: f32 = s.iter().map(|x| x.exp()).sum();
                    for x in 0..d {
                        want[at(bb, i, hh, x)] = (0..t).map(|j| s[j].exp() / z * v[at(bb, j, hh, x)]).sum();
                    }
                }
            }
        }
        close(&out["y"], &want);
        if lanes > 1 && d >= 16 && t >= 2 * lanes && t * t > t * d {
            // The query is turned, and the weighted sum runs along the values.
            let text = g.kernels[0].to_string();
            assert!(text.contains("zip") && text.contains("[lane "), "{text}");
        }
        if t * t > t * d * 2 {
            assert_eq!(g.launches.len(), 1, "{:?}", g.launches);
            let widest = g.buffers.iter().map(|b| b.shape.iter().product::<usize>()).max();
            assert_eq!(widest, Some(len));
        }
    }
}

#[test]
fn normalisation_is_one_kernel() {
    let (n, c) = (19, 13);
    let mut m = Make::new();
    let x = m.input("x", &[n, c]);
    let (i, k) = (m.var(n), m.var(c));
    let mean = m.def("sum", &[i], Expr::sum(vec![k], Pred::True, rd(x, &[i, k])));
    let centred = Expr::sub(rd(x, &[i, k]), Expr::div(rd(mean, &[i]), Expr::constant(Elem::F32, c as f64)));
    let var = m.def("var", &[i], Expr::sum(vec![k], Pred::True, Expr::mul(centred.clone(), centred.clone())));
    let y = m.def("y", &[i, k], Expr::binary(BinaryOp::Div, centred, Expr::unary(UnaryOp::Sqrt, rd(var, &[i]))));
    m.result(y);
    let g = schedule(&m.program(), &facts(8));
    let xs = fill(n * c, 5);
    let out = execute(&g, &[("x", xs.clone())]);
    let mut want = vec![];
    for i in 0..n {
        let row = &xs[i * c..][..c];
        let mean = row.iter().sum::<f32>() / c as f32;
        let var: f32 = row.iter().map(|x| (x - mean) * (x - mean)).sum();
        want.extend(row.iter().map(|x| (x - mean) / var.sqrt()));
    }
    close(&out["y"], &want);
    assert_eq!(g.launches.len(), 1);
}

#[test]
fn long_sums_are_split() {
    let n = 10_007;
    let mut m = Make::new();
    let x = m.input("x", &[n]);
    let k = m.var(n);
    let y = m.def("y", &[], Expr::sum(vec![k], Pred::True, rd(x, &[k])));
    m.result(y);
    let g = schedule(&m.program(), &facts(16));
    let xs = fill(n, 5);
    let out = execute(&g, &[("x", xs.clone())]);
    close(&out["y"], &[xs.iter().sum()]);
    assert_eq!(g.launches.len(), 2);
}

#[test]
fn in_lockstep_a_weights_gradient_is_split_while_its_parts_are_small() {
    let graphics =
        Facts { units: 1 << 15, registers: 16, local_bytes: 4096, lockstep: true, pairs: 1 << 25, ..facts(4) };
    // Batch, tokens, inputs and outputs; launches.
    for (b, n, c, o, launches) in [(3, 67, 12, 20, 2), (1, 197, 12, 20, 1), (64, 196, 512, 1536, 1)] {
        let mut m = Make::new();
        let (x, g) = (m.input("x", &[b, n, c]), m.input("g", &[b, n, o]));
        let (j, i, s, t) = (m.var(o), m.var(c), m.var(b), m.var(n));
        let product = Expr::mul(rd(g, &[s, t, j]), rd(x, &[s, t, i]));
        let y = m.def("y", &[j, i], Expr::sum(vec![s, t], Pred::True, product));
        m.result(y);
        let graph = schedule(&m.program(), &graphics);
        assert_eq!(graph.launches.len(), launches, "{b} x {n}");
        if o > 100 {
            continue;
        }
        let (xs, gs) = (fill(b * n * c, 1), fill(b * n * o, 2));
        let out = execute(&graph, &[("x", xs.clone()), ("g", gs.clone())]);
        let dot = |p: usize| (0..b * n).map(|r| gs[r * o + p / c] * xs[r * c + p % c]).sum::<f32>();
        close(&out["y"], &(0..o * c).map(dot).collect::<Vec<_>>());
    }
}

#[test]
fn programs_verify_and_print() {
    let mut m = Make::new();
    let (y, _) = attention(&mut m, 1, (2, 3), 1, 2);
    m.result(y);
    let program = m.program();
    crate::ir::verify::verify(&program).expect("the program is well formed");
    assert!(program.to_string().contains("exp(score["), "{program}");
}

fn gathers(g: &KernelGraph) -> usize {
    fn count(block: &[crate::loops::Stmt]) -> usize {
        use crate::loops::{Op, Stmt};
        let own = |s: &Stmt| match s {
            Stmt::Let(_, Op::Gather { .. }) | Stmt::Scatter { .. } => 1,
            Stmt::For { body, .. } => count(body),
            Stmt::If { then, otherwise, .. } => count(then) + count(otherwise),
            _ => 0,
        };
        block.iter().map(own).sum()
    }
    g.kernels.iter().map(|k| count(&k.body)).sum()
}

#[test]
fn a_normalisation_runs_along_its_rows() {
    for (n, c, whole) in [(5, 32, true), (12, 20, true), (7, 13, false)] {
        let mut m = Make::new();
        let (x, w) = (m.input("x", &[n, c]), m.param("w", &[c]));
        let (i, j) = (m.var(n), m.var(c));
        let sum = m.def("sum", &[i], Expr::sum(vec![j], Pred::True, rd(x, &[i, j])));
        let size = Expr::constant(Elem::F32, c as f64);
        let mean = m.def("mean", &[i], Expr::binary(BinaryOp::Div, rd(sum, &[i]), size.clone()));
        let centred = |j: VarId| Expr::binary(BinaryOp::Sub, rd(x, &[i, j]), rd(mean, &[i]));
        let k = m.var(c);
        let squares = m.def("squares", &[i], Expr::sum(vec![k], Pred::True, Expr::mul(centred(k), centred(k))));
        let variance = Expr::binary(BinaryOp::Div, rd(squares, &[i]), size);
        let scale = Expr::unary(UnaryOp::Rsqrt, Expr::add(variance, Expr::constant(Elem::F32, 1e-5)));
        let l = m.var(c);
        let y = m.def("y", &[i, l], Expr::mul(Expr::mul(centred(l), scale), rd(w, &[l])));
        m.result(y);
        let g = schedule(&m.program(), &facts(16));
        assert_eq!(g.launches.len(), 1);
        if whole {
            assert_eq!(gathers(&g), 0, "{}", g.kernels[0]);
        }
        let (xs, ws) = (fill(n * c, 1), fill(c, 2));
        let out = execute(&g, &[("x", xs.clone()), ("w", ws.clone())]);
        let mut want = Vec::new();
        for row in xs.chunks(c) {
            let mean = row.iter().sum::<f32>() / c as f32;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / c as f32;
            want.extend(row.iter().zip(&ws).map(|(x, w)| (x - mean) / (variance + 1e-5).sqrt() * w));
        }
        close(&out["y"], &want);
    }
}

#[test]
fn a_border_that_a_vector_shares_keeps_its_loads_whole() {
    let (n, c) = (9, 32);
    let mut m = Make::new();
    let (x, w) = (m.input("x", &[n, c]), m.param("w", &[3, c]));
    let (i, j, t) = (m.var(n), m.var(c), m.var(3));
    let place = Index::from(i).add(&t.into()).plus(-1);
    let body = Expr::mul(Expr::read_or_zero(Elem::F32, x, vec![place, j.into()]), rd(w, &[t, j]));
    let y = m.def("y", &[i, j], Expr::sum(vec![t], Pred::True, body));
    m.result(y);
    let g = schedule(&m.program(), &facts(16));
    assert_eq!(gathers(&g), 0, "{}", g.kernels[0]);
    let (xs, ws) = (fill(n * c, 1), fill(3 * c, 2));
    let out = execute(&g, &[("x", xs.clone()), ("w", ws.clone())]);
    let tap = |i: usize, j: usize, t: usize| match (i + t).checked_sub(1) {
        Some(p) if p < n => xs[p * c + j] * ws[t * c + j],
        _ => 0.0,
    };
    let want: Vec<f32> = (0..n * c).map(|p| (0..3).map(|t| tap(p / c, p % c, t)).sum()).collect();
    close(&out["y"], &want);
}

#[test]
fn a_depthwise_convolution_and_its_gradient_meet_borders() {
    // Tiles of several columns share the conditions on rows; those at the edge have their own on columns.
    let (h, w, c) = (5, 17, 40);
    for transposed in [false, true] {
        let mut m = Make::new();
        let (x, k) = (m.input("x", &[h, w, c]), m.param("k", &[3, 3, c]));
        let (i, j, l) = (m.var(h), m.var(w), m.var(c));
        let (u, v) = (m.var(3), m.var(3));
        let sign = if transposed { -1 } else { 1 };
        let place = |at: VarId, tap: VarId| Index::from(at).add(&Index::from(tap).scale(sign)).plus(-sign);
        let tap = rd(k, &[u, v, l]);
        let y = if transposed {
            let read = Expr::read(Elem::F32, x, vec![place(i, u), place(j, v), l.into()]);
            let within =
                |at: Index, n: usize| Pred::and([Pred::NonNeg(Index::from(n as i64 - 1).sub(&at)), Pred::NonNeg(at)]);
            let inside = [within(place(i, u), h), within(place(j, v), w)];
            let sum = Expr::sum(vec![u, v], Pred::and(inside), Expr::mul(read, tap));
            m.def("y", &[i, j, l], sum)
        } else {
            let read = Expr::read_or_zero(Elem::F32, x, vec![place(i, u), place(j, v), l.into()]);
            m.def("y", &[i, j, l], Expr::sum(vec![u, v], Pred::True, Expr::mul(read, tap)))
        };
        m.result(y);
        let g = schedule(&m.program(), &facts(16));
        let (xs, ks) = (fill(h * w * c, 1), fill(9 * c, 2));
        let out = execute(&g, &[("x", xs.clone()), ("k", ks.clone())]);
        let mut want = Vec::new();
        for (i, j, l) in (0..h * w * c).map(|p| (p / c / w, p / c % w, p % c)) {
            let taps = (0..9).map(|t| (t / 3, t % 3, ks[t * c + l]));
            let at =
                |n: usize, tap: usize| if transposed { (n + 1).checked_sub(tap) } else { (n + tap).checked_sub(1) };
            let value = |(u, v, k): (usize, usize, f32)| match (at(i, u), at(j, v)) {
                (Some(i), Some(j)) if i < h && j < w => xs[(i * w + j) * c + l] * k,
                _ => 0.0,
            };
            want.push(taps.map(value).sum());
        }
        close(&out["y"], &want);
    }
}

/// A window of five rows, scaled, and its kernels' text.
fn scaled_window(n: usize, channels: usize) -> String {
    let mut m = Make::new();
    let (x, k) = (m.input("x", &[n, channels]), m.param("k", &[5, channels]));
    let z = m.input("z", &[n, channels]);
    let (i, l, u) = (m.var(n), m.var(channels), m.var(5));
    let near = Expr::read_or_zero(Elem::F32, x, vec![Index::from(i).add(&u.into()).plus(-2), l.into()]);
    let y = m.def("y", &[i, l], Expr::sum(vec![u], Pred::True, Expr::mul(near, rd(k, &[u, l]))));
    let scaled = m.def("scaled", &[i, l], Expr::mul(rd(y, &[i, l]), rd(z, &[i, l])));
    m.result(scaled);
    let graph = schedule(&m.program(), &facts(16));
    graph.kernels.iter().map(|k| k.to_string()).collect()
}

#[test]
fn what_later_tiles_read_first_is_brought_near_if_it_is_large() {
    let prefetches = |n, channels| scaled_window(n, channels).matches("prefetch").count();
    assert_eq!(prefetches(100, 64), 0);
    // For each vector of a tile of eight rows: eight of one operand, and of the twelve of the other those that the tile before did not have.
    assert_eq!(prefetches(20_000, 64), 16);
}

/// More than two megabytes of weights, in no layout that suits the sums: `y = x w` over two variables, and the gradient of `w`.
fn wide_kernel(n: usize, gradient: bool) -> Program {
    let (o, c, k) = (64, 64, 131);
    let mut m = Make::new();
    let (x, z, w) = (m.input("x", &[n, k, c]), m.input("z", &[n, o]), m.param("w", &[o, c, k]));
    let (i, f, g, h) = (m.var(n), m.var(o), m.var(c), m.var(k));
    let result = if gradient {
        let product = Expr::mul(rd(x, &[i, h, g]), rd(z, &[i, f]));
        m.def("dw", &[f, g, h], Expr::sum(vec![i], Pred::True, product))
    } else {
        let product = Expr::mul(rd(x, &[i, h, g]), rd(w, &[f, g, h]));
        m.def("y", &[i, f], Expr::sum(vec![g, h], Pred::True, product))
    };
    m.result(result);
    m.program()
}

#[test]
fn large_weights_that_lanes_run_across_are_copied() {
    let kernels = |g: &KernelGraph| g.kernels.iter().map(|k| k.name.clone()).collect::<Vec<_>>();
    let product = schedule(&wide_kernel(784, false), &facts(16));
    assert_eq!(kernels(&product), ["w.permuted", "y"]);
    assert_eq!(gathers(&product), 0);
    let n = 40;
    let gradient = schedule(&wide_kernel(n, true), &facts(16));
    assert_eq!(kernels(&gradient), ["dw.permuted", "dw"]);
    assert_eq!(gathers(&gradient), 0);
    let (o, c, k) = (64, 64, 131);
    let (xs, zs) = (fill(n * k * c, 1), fill(n * o, 2));
    let out = execute(&gradient, &[("x", xs.clone()), ("z", zs.clone()), ("w", fill(o * c * k, 3))]);
    let element = |p: usize| -> f32 {
        let (f, g, h) = (p / k / c, p / k % c, p % k);
        (0..n).map(|i| xs[(i * k + h) * c + g] * zs[i * o + f]).sum()
    };
    close(&out["dw"], &(0..o * c * k).map(element).collect::<Vec<_>>());
}

/// `y = a + b + c + bias`, where those are products `x w` with so many inputs each, and how many of them are stored; weights with their inputs side by side, if
/// they are turned.
fn added(n: usize, o: usize, inputs: [usize; 3], turned: bool) -> (Program, usize) {
    let mut m = Make::new();
    let mut all = Vec::new();
    for (name, c) in ["a", "b", "c"].into_iter().zip(inputs) {
        let x = m.input(&format!("x{name}"), &[n, c]);
        let w = m.param(&format!("w{name}"), &if turned { [o, c] } else { [c, o] });
        let [i, j, k] = [n, o, c].map(|size| m.var(size));
        let weight = if turned { rd(w, &[j, k]) } else { rd(w, &[k, j]) };
        all.push(m.def(name, &[i, j], Expr::sum(vec![k], Pred::True, Expr::mul(rd(x, &[i, k]), weight))));
    }
    let bias = m.param("bias", &[o]);
    let [i, j] = [n, o].map(|size| m.var(size));
    let body = all.iter().map(|&t| rd(t, &[i, j])).fold(rd(bias, &[j]), Expr::add);
    let y = m.def("y", &[i, j], body);
    m.result(y);
    let program = m.program();
    let stored = storage::decide(&program, program.entry(), true, 0).stored;
    (program, all.iter().filter(|t| stored[t.index()]).count())
}

#[test]
fn of_several_long_sums_one_is_computed_where_they_are_added() {
    let (program, stored) = added(65, 64, [96, 48, 40], false);
    assert_eq!(stored, 2);
    check_schedule(&program, &arguments(&program));
    let (program, stored) = added(33, 40, [64, 48, 64], true);
    assert_eq!(stored, 1);
    check_schedule(&program, &arguments(&program));
}

#[test]
fn long_sums_of_one_form_are_one_sum_where_they_are_added() {
    for (n, o, c) in [(65, 64, 96), (61, 50, 13), (64, 32, 400), (4, 3, 9)] {
        for turned in [false, true] {
            let (program, stored) = added(n, o, [c; 3], turned);
            assert_eq!(stored, 0);
            let graph = schedule(&program, &facts(16));
            let loops = graph.kernels.iter().map(|k| k.to_string()).collect::<String>();
            assert!(!loops.contains("select"), "terms are written out\n{loops}");
            check_schedule(&program, &arguments(&program));
        }
    }
}

/// A convolution with one group, what scales and rectifies it, and a product that reads that many times.
fn rectified(h: usize, c: usize) -> (Program, [TensorId; 3]) {
    let mut m = Make::new();
    let (x, w, v) = (m.input("x", &[h, c]), m.param("w", &[c, c, 3]), m.param("v", &[c, c]));
    let [p, g, o, i, u] = [h, 1, c, c, 3].map(|size| m.var(size));
    let beside = vec![Index::from(p).add(&u.into()).plus(-1), i.into()];
    let body = Expr::mul(rd(w, &[o, i, u]), Expr::read_or_zero(Elem::F32, x, beside));
    let z = m.def("z", &[p, g, o], Expr::sum(vec![i, u], Pred::True, body));
    let [p, o] = [h, c].map(|size| m.var(size));
    let read = Expr::read(Elem::F32, z, vec![p.into(), 0.into(), o.into()]);
    let scaled = m.def("scaled", &[p, o], Expr::mul(read, Expr::constant(Elem::F32, 0.5)));
    let [p, o] = [h, c].map(|size| m.var(size));
    let r = m.def("r", &[p, o], Expr::binary(BinaryOp::Max, rd(scaled, &[p, o]), Expr::constant(Elem::F32, 0.0)));
    let [p, o, k] = [h, c, c].map(|size| m.var(size));
    let y = m.def("y", &[p, o], Expr::sum(vec![k], Pred::True, Expr::mul(rd(r, &[p, k]), rd(v, &[k, o]))));
    m.result(y);
    (m.program(), [z, scaled, r])
}

#[test]
fn what_is_read_often_is_stored_in_the_place_of_what_it_is_made_of() {
    for (h, c) in [(37, 24), (64, 48), (5, 3)] {
        let (program, [z, scaled, r]) = rectified(h, c);
        let stored = storage::decide(&program, program.entry(), true, 0).stored;
        assert_eq!([z, scaled, r].map(|t| stored[t.index()]), [false, false, true]);
        check_schedule(&program, &arguments(&program));
    }
}

#[test]
fn a_sum_down_columns_may_have_something_around_it() {
    for (n, c) in [(3001, 272), (2999, 129)] {
        let mut m = Make::new();
        let (x, b) = (m.input("x", &[n, c]), m.param("b", &[c]));
        let [i, j] = [n, c].map(|size| m.var(size));
        let sum = Expr::sum(vec![i], Pred::True, Expr::mul(rd(x, &[i, j]), rd(x, &[i, j])));
        let half = Expr::mul(sum, Expr::constant(Elem::F32, 0.125));
        let y = m.def("y", &[j], Expr::add(half, rd(b, &[j])));
        m.result(y);
        let program = m.program();
        let graph = schedule(&program, &facts(16));
        assert!(graph.kernels.len() > 1, "parts of the sum, and what is made of them");
        check_schedule(&program, &arguments(&program));
    }
}
