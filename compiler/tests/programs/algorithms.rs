//! Tables, linear forms, rows and windows.

use crate::build::*;
use foveate_compiler::ir::*;
use foveate_compiler::rewrite::{hoist, linearise, pipeline, relative, restrict, window};

/// q, k `[h, (iy, ix), d]` and v `[h, (iy, ix), e]` on a grid, with the indices of a query and a key.
pub struct Grid {
    pub b: Build,
    pub h: VarId,
    pub i: [VarId; 2],
    pub j: [VarId; 2],
    pub d: VarId,
    pub e: VarId,
    pub q: TensorId,
    pub k: TensorId,
    pub v: TensorId,
}

pub fn grid(heads: usize, gy: usize, gx: usize, depth: usize) -> Grid {
    let mut b = Build::new();
    let shape = [heads, gy, gx, depth];
    let (q, k, v) = (b.input("q", &shape), b.input("k", &shape), b.input("v", &shape));
    let h = b.var("h", heads);
    let i = [b.var("i.row", gy), b.var("i.col", gx)];
    let j = [b.var("j.row", gy), b.var("j.col", gx)];
    let (d, e) = (b.var("d", depth), b.var("e", depth));
    Grid { b, h, i, j, d, e, q, k, v }
}

impl Grid {
    fn pairs(&self) -> Vec<VarId> {
        vec![self.h, self.i[0], self.i[1], self.j[0], self.j[1]]
    }
    fn with(&self, p: [VarId; 2], last: VarId) -> Vec<VarId> {
        vec![self.h, p[0], p[1], last]
    }
    /// `dot[h, i, j] = sum(d) f(q) g(k)`.
    fn dot(&mut self, f: fn(Expr) -> Expr) -> TensorId {
        let body = Expr::mul(f(read(self.q, &self.with(self.i, self.d))), f(read(self.k, &self.with(self.j, self.d))));
        let vars = self.pairs();
        self.b.define("dot", &vars, sum(&[self.d], body))
    }
    /// `y[h, i, e] = sum(j) weight * v`.
    fn weighted(&mut self, name: &str, weight: Expr) -> TensorId {
        let body = Expr::mul(weight, read(self.v, &self.with(self.j, self.e)));
        let vars = self.with(self.i, self.e);
        self.b.define(name, &vars, sum(&self.j.clone(), body))
    }
    /// Attention with a softmax over j of `score`.
    fn softmax(&mut self, score: TensorId) {
        let (pairs, rows) = (self.pairs(), vec![self.h, self.i[0], self.i[1]]);
        let m = self.b.define("m", &rows, max(&self.j.clone(), read(score, &pairs)));
        let e = self.b.define("e", &pairs, exp(Expr::sub(read(score, &pairs), read(m, &rows))));
        let l = self.b.define("l", &rows, sum(&self.j.clone(), read(e, &pairs)));
        let p = self.b.define("p", &pairs, Expr::div(read(e, &pairs), read(l, &rows)));
        let y = self.weighted("y", read(p, &pairs));
        self.b.result(y);
    }
}

/// Attention whose score is multiplied by a perceptron of the offset.
pub fn perceptron_of_offsets(gy: usize, gx: usize) -> Build {
    let mut g = grid(2, gy, gx, 3);
    let (w1, b1) = (g.b.param("w1", &[6, 2]), g.b.param("b1", &[6]));
    let (w2, b2) = (g.b.param("w2", &[6, 1]), g.b.param("b2", &[2]));
    let merged = Index::from(g.h).scale(3).add(&g.d.into());
    let w = |n: i64| read_at(w1, vec![merged.clone(), n.into()]);
    let inner = Expr::add(
        Expr::add(Expr::mul(w(0), value(minus(g.j[1], g.i[1]))), Expr::mul(w(1), value(minus(g.j[0], g.i[0])))),
        read_at(b1, vec![merged.clone()]),
    );
    let all = vec![g.h, g.d, g.i[0], g.i[1], g.j[0], g.j[1]];
    let hidden = g.b.define("hidden", &all, relu(inner));
    let pairs = g.pairs();
    let s = sum(&[g.d], Expr::mul(read_at(w2, vec![merged, 0.into()]), read(hidden, &all)));
    let mixed = g.b.define("mixed", &pairs, s);
    let prior = g.b.define("prior", &pairs, Expr::add(read(b2, &[g.h]), read(mixed, &pairs)));
    let dot = g.dot(|e| e);
    let score = g.b.define("score", &pairs, Expr::mul(read(prior, &pairs), read(dot, &pairs)));
    g.softmax(score);
    g.b
}

#[test]
fn a_perceptron_of_the_offset_is_a_table() {
    for (gy, gx) in [(4, 4), (3, 5), (2, 7), (1, 5)] {
        let b = perceptron_of_offsets(gy, gx);
        let (after, report) = rewritten(&b.program, pipeline::BEFORE);
        if gy > 1 {
            assert!(report.fired(relative::NAME, "hidden"), "{report:#?}");
            assert!(report.fired(relative::NAME, "prior"), "{report:#?}");
            let text = format!("(2*{gy}-1)(2*{gx}-1) for each h");
            assert!(report.entries.iter().any(|e| e.reason.contains(&text)), "{report:#?}");
            assert!(shapes_of(&after, "hidden").is_empty(), "nothing quadratic is left of it");
        }
        assert!(!report.fired(relative::NAME, "dot"));
        assert!(!report.fired(linearise::NAME, "y"));
        let stopped = report.entries.iter().find(|e| e.rewrite == linearise::NAME && !e.fired);
        let stopped = stopped.unwrap_or_else(|| panic!("{gy} {gx} {report:#?}"));
        assert!(stopped.reason.contains("exp of the score lies between the products"), "{stopped:?}");
    }
}

/// A slope times a distance is a constant table; a learned bias, read at an offset, is a table already.
#[test]
fn biases_by_offset() {
    let mut g = grid(2, 4, 3, 2);
    let (slope, bias) = (g.b.param("slope", &[2]), g.b.param("bias", &[2, 7, 5]));
    let far = |n: usize| {
        let x = value(minus(g.j[n], g.i[n]));
        Expr::mul(x.clone(), x)
    };
    let distance = Expr::unary(UnaryOp::Sqrt, Expr::add(far(0), far(1)));
    let pairs = g.pairs();
    let dot = g.dot(|e| e);
    let at = vec![g.h.into(), minus(g.i[0], g.j[0]).plus(3), minus(g.i[1], g.j[1]).plus(2)];
    let learned = Expr::add(read(dot, &pairs), read_at(bias, at));
    let score = g.b.define("score", &pairs, Expr::sub(learned, Expr::mul(read(slope, &[g.h]), distance)));
    g.softmax(score);
    let (after, report) = rewritten(&g.b.program, pipeline::BEFORE);
    assert!(report.fired(relative::NAME, "score"), "{report:#?}");
    let tables = report.entries.iter().filter(|e| e.rewrite == relative::NAME && e.fired).count();
    assert_eq!(tables, 1, "the learned bias stays as it is: {report:#?}");
    assert_eq!(shapes_of(&after, "score.offsets"), vec![vec![2, 7, 5]]);
}

/// Masks by offset keep the table's reads inside.
#[test]
fn a_table_under_a_guard() {
    let mut b = Build::new();
    let w = b.param("w", &[3]);
    let (i, j) = (b.var("i", 6), b.var("j", 6));
    let near = Pred::And(vec![Pred::NonNeg(minus(j, i).plus(1)), Pred::NonNeg(minus(i, j).plus(1))]);
    let inside = exp(Expr::mul(read_at(w, vec![minus(j, i).plus(1)]), value(minus(j, i))));
    let t = b.define("t", &[i, j], Expr::select(near, inside, num(0.0)));
    b.result(t);
    let (_, report) = rewritten(&b.program, &alone("relative", relative::run));
    assert!(report.fired(relative::NAME, "t"), "{report:#?}");
}

fn angle(g: &Grid, n: usize, size: usize) -> Expr {
    let turn = Expr::mul(num(std::f64::consts::FRAC_PI_2), value(minus(g.i[n], g.j[n])));
    Expr::div(turn, num(size as f64))
}

/// Weights by the cosine of the distance, quadratic as written.
pub fn vicinity(gy: usize, gx: usize, product: bool) -> Build {
    let mut g = grid(2, gy, gx, 2);
    let (x, y) = (cos(angle(&g, 0, gy)), cos(angle(&g, 1, gx)));
    let pairs = g.pairs();
    let dot = g.dot(relu);
    let w = g.b.define("w", &pairs, if product { Expr::mul(x, y) } else { Expr::add(x, y) });
    let s = g.b.define("s", &pairs, Expr::mul(read(w, &pairs), read(dot, &pairs)));
    let num_ = g.weighted("top", read(s, &pairs));
    let rows = vec![g.h, g.i[0], g.i[1]];
    let den = g.b.define("bottom", &rows, sum(&g.j.clone(), read(s, &pairs)));
    let out = g.with(g.i, g.e);
    let y = g.b.define("y", &out, Expr::div(read(num_, &out), Expr::add(read(den, &rows), num(1e-4))));
    g.b.result(y);
    g.b
}

#[test]
fn cosine_weights_are_of_rank_four() {
    for (gy, gx) in [(5, 7), (6, 6), (4, 6)] {
        for product in [false, true] {
            let b = vicinity(gy, gx, product);
            let (after, report) = rewritten(&b.program, pipeline::BEFORE);
            for name in ["top", "bottom"] {
                assert!(report.fired(linearise::NAME, name), "{report:#?}");
                let site = format!("main.{name}");
                assert!(
                    report.algorithms.iter().any(|a| a.site == site && a.text == "linear, rank 4 (in i.row, i.col)"),
                    "{report:#?}"
                );
            }
            for s in &after.entry().body {
                for t in s.defines() {
                    let size: usize = after.shape(after.entry(), t).iter().product();
                    assert!(size < gy * gx * gy * gx, "{} is quadratic", after.entry().tensor(t).name);
                }
            }
        }
    }
}

#[test]
fn a_feature_map_is_of_rank_one() {
    let mut g = grid(3, 5, 4, 3);
    let dot = g.dot(|e| {
        let positive = Expr::new(Elem::Bool, Node::Binary(BinaryOp::Gt, e.clone(), num(0.0)));
        Expr::select(Pred::Value(positive), Expr::add(e.clone(), num(1.0)), exp(e))
    });
    let pairs = g.pairs();
    let y = g.weighted("y", read(dot, &pairs));
    g.b.result(y);
    let (_, report) = rewritten(&g.b.program, pipeline::BEFORE);
    assert!(report.algorithms.iter().any(|a| a.text.starts_with("linear, rank 1")), "{report:#?}");
}

/// A softmax of scores that are the same in every row stays relative to the greatest: exponentials of the scores alone overflow.
#[test]
fn a_softmax_is_not_taken_apart() {
    let mut b = Build::new();
    let (x, y) = (b.input("x", &[4]), b.input("y", &[30]));
    let (i, j, s) = (b.var("i", 30), b.var("j", 30), b.var("s", 4));
    let product = Expr::unary(UnaryOp::Tanh, Expr::mul(read(x, &[s]), read(y, &[j])));
    let score = b.define("score", &[i, j], sum(&[s], product));
    let m = b.define("m", &[i], max(&[j], read(score, &[i, j])));
    let e = b.define("e", &[i, j], exp(Expr::sub(read(score, &[i, j]), Expr::stop(read(m, &[i])))));
    let total = b.define("total", &[i], sum(&[j], read(e, &[i, j])));
    b.result(total);
    let (_, report) = rewritten(&b.program, pipeline::BEFORE);
    assert!(!report.fired(linearise::NAME, "total"), "{report:#?}");
}

/// What stands between the products, and masks, stop it; each is named.
#[test]
fn what_does_not_separate() {
    let sigmoid = |e: Expr| Expr::div(num(1.0), Expr::add(num(1.0), exp(Expr::neg(e))));
    for (f, reason) in [
        (sigmoid as fn(Expr) -> Expr, "lies between the products"),
        (exp, "exp of the score"),
        (relu, "max of the score"),
    ] {
        let mut g = grid(1, 6, 6, 2);
        let dot = g.dot(|e| e);
        let pairs = g.pairs();
        let p = g.b.define("p", &pairs, f(read(dot, &pairs)));
        let y = g.weighted("y", read(p, &pairs));
        g.b.result(y);
        let (_, report) = rewritten(&g.b.program, pipeline::BEFORE);
        assert!(!report.fired(linearise::NAME, "y"), "{report:#?}");
        assert!(report.entries.iter().any(|e| !e.fired && e.reason.contains(reason)), "{report:#?}");
    }
    // Causal: the condition couples i and j.
    let mut g = grid(1, 6, 6, 2);
    let dot = g.dot(|e| e);
    let pairs = g.pairs();
    let body = Expr::mul(read(dot, &pairs), read(g.v, &g.with(g.j, g.e)));
    let causal = Pred::NonNeg(minus(g.i[0], g.j[0]).scale(6).add(&minus(g.i[1], g.j[1])));
    let out = g.with(g.i, g.e);
    let y = g.b.define("y", &out, Expr::sum(g.j.to_vec(), causal, body));
    g.b.result(y);
    let (_, report) = rewritten(&g.b.program, &alone("linearise", linearise::run));
    assert!(!report.entries.iter().any(|e| e.fired), "{report:#?}");
    assert!(report.entries.iter().any(|e| e.reason.contains("mask")), "{report:#?}");
}

/// A condition on rows leaves the columns free.
#[test]
fn what_is_not_masked_separates() {
    let mut g = grid(1, 6, 6, 2);
    let dot = g.dot(|e| e);
    let pairs = g.pairs();
    let body = Expr::mul(read(dot, &pairs), read(g.v, &g.with(g.j, g.e)));
    let above = Pred::NonNeg(minus(g.i[0], g.j[0]));
    let out = g.with(g.i, g.e);
    let y = g.b.define("y", &out, Expr::sum(g.j.to_vec(), above, body));
    g.b.result(y);
    let (_, report) = rewritten(&g.b.program, &alone("linearise", linearise::run));
    assert!(report.algorithms.iter().any(|a| a.text == "linear, rank 1 (in i.col)"), "{report:#?}");
}

/// At sizes where the quadratic form is cheaper it stays.
#[test]
fn few_tokens_stay_quadratic() {
    let mut g = grid(1, 2, 2, 16);
    let dot = g.dot(|e| e);
    let pairs = g.pairs();
    let y = g.weighted("y", read(dot, &pairs));
    g.b.result(y);
    let (_, report) = rewritten(&g.b.program, pipeline::BEFORE);
    assert!(!report.fired(linearise::NAME, "y"), "{report:#?}");
    assert!(report.entries.iter().any(|e| e.reason.contains("no fewer")), "{report:#?}");
}

/// Ordinary layers are left alone.
#[test]
fn products_with_parameters_are_not_reassociated() {
    let mut b = Build::new();
    let (x, w1, w2) = (b.input("x", &[2, 8, 5]), b.param("w1", &[7, 5]), b.param("w2", &[5, 7]));
    let (n, i, c, d, o) = (b.var("b", 2), b.var("i", 8), b.var("c", 5), b.var("d", 7), b.var("o", 5));
    let h = b.define("h", &[n, i, d], sum(&[c], Expr::mul(read(x, &[n, i, c]), read(w1, &[d, c]))));
    let a = b.define("a", &[n, i, d], relu(read(h, &[n, i, d])));
    let y = b.define("y", &[n, i, o], sum(&[d], Expr::mul(read(a, &[n, i, d]), read(w2, &[o, d]))));
    b.result(y);
    let (_, report) = rewritten(&b.program, pipeline::BEFORE);
    assert!(!report.entries.iter().any(|e| e.fired), "{report:#?}");
}

/// One row of the scores is all that is computed of them.
#[test]
fn a_row_of_the_scores() {
    let (heads, tokens, depth) = (2, 7, 3);
    let mut b = Build::new();
    let (x, w) = (b.input("x", &[tokens, 6]), b.param("w", &[heads * depth * 2, 6]));
    let (h, i, j, d, c) = (b.var("h", heads), b.var("i", tokens), b.var("j", tokens), b.var("d", depth), b.var("c", 6));
    let o = b.var("o", heads * depth * 2);
    let qk = b.define("qk", &[i, o], sum(&[c], Expr::mul(read(x, &[i, c]), read(w, &[o, c]))));
    let half = |n: i64| Index::from(h).scale(depth as i64).add(&d.into()).plus(n * (heads * depth) as i64);
    let q = b.define("q", &[i, h, d], read_at(qk, vec![i.into(), half(0)]));
    let k = b.define("k", &[j, h, d], read_at(qk, vec![j.into(), half(1)]));
    let dot = b.define("dot", &[h, i, j], sum(&[d], Expr::mul(read(q, &[i, h, d]), read(k, &[j, h, d]))));
    let score = b.define("score", &[h, i, j], Expr::mul(read(dot, &[h, i, j]), num(0.5)));
    let p = b.var("p", tokens - 1);
    let row = b.define("row", &[h, p], exp(read_at(score, vec![h.into(), 0.into(), Index::from(p).plus(1)])));
    b.result(row);
    let (after, report) = rewritten(&b.program, pipeline::BEFORE);
    assert!(report.fired(restrict::NAME, "score"), "{report:#?}");
    assert!(shapes_of(&after, "dot").is_empty() && shapes_of(&after, "score").is_empty());
    // With attention beside it, that reads all scores, the row is still its own.
    let total = b.define("total", &[h, i], max(&[j], read(score, &[h, i, j])));
    b.result(total);
    let (after, report) = rewritten(&b.program, pipeline::BEFORE);
    assert!(report.fired(restrict::NAME, "score"), "{report:#?}");
    assert!(
        report.entries.iter().any(|e| e.rewrite == restrict::NAME && !e.fired && e.site == "main.qk"),
        "{report:#?}"
    );
    assert_eq!(shapes_of(&after, "dot").len(), 1);
}

/// The row of a callee's result is computed in the callee.
#[test]
fn a_row_through_a_call() {
    let mut b = Build::new();
    let (q, k) = (b.input("q", &[5, 3]), b.input("k", &[5, 3]));
    let (i, j, d) = (b.var("i", 5), b.var("j", 5), b.var("d", 3));
    let s = b.define("s", &[i, j], sum(&[d], Expr::mul(read(q, &[i, d]), read(k, &[j, d]))));
    let m = b.define("m", &[i], max(&[j], read(s, &[i, j])));
    b.result(m);
    b.result(s);
    let mut callee = b.program.functions.remove(0);
    callee.name = "callee".to_owned();
    let mut caller = Build::new();
    caller.program.axes = b.program.axes;
    caller.program.functions.insert(0, callee);
    caller.program.entry = FuncId(1);
    let p = &mut caller.program;
    let (five, three) = (p.atom("N5", 5), p.atom("N3", 3));
    let f = &mut p.functions[1];
    let mut results = Vec::new();
    for n in 0..2 {
        let q = f.new_tensor(format!("q{n}"), Elem::F64, vec![five, three], None);
        f.args.push(Arg { tensor: q, role: ArgRole::Input(format!("q{n}")) });
        let m = f.new_tensor(format!("m{n}"), Elem::F64, vec![five], None);
        let s = f.new_tensor(format!("s{n}"), Elem::F64, vec![five, five], None);
        let site = format!("call{n}");
        f.body.push(Stmt::Call(Call { function: FuncId(0), args: vec![q, q], results: vec![m, s], site }));
        f.results.push(FnResult { tensor: m, role: ResultRole::Output(format!("m{n}")) });
        results.push(s);
    }
    let v = f.new_var("v", five);
    let row = f.new_tensor("row", Elem::F64, vec![five], None);
    let body = exp(Expr::read(Elem::F64, results[1], vec![2.into(), v.into()]));
    let clause = Clause { vars: vec![v], at: vec![v.into()], body };
    f.body.push(Stmt::Define(Definition { tensor: row, clauses: vec![clause], keep: Keep::Auto }));
    f.results.push(FnResult { tensor: row, role: ResultRole::Output("row".to_owned()) });
    let (after, report) = rewritten(&caller.program, pipeline::BEFORE);
    assert!(report.fired(restrict::NAME, "s1"), "{report:#?}");
    assert_eq!(after.functions.len(), 3, "the other call has a function without the scores");
    assert!(after.functions.iter().all(|f| f.name != "callee" || f.results.len() == 1));
}

/// Conditions on distances make windows, also asymmetric ones; loose ones do not.
#[test]
fn bands_are_windows() {
    let build = |lo: i64, hi: i64| {
        let mut b = Build::new();
        let v = b.input("v", &[11]);
        let (i, j) = (b.var("i", 11), b.var("j", 11));
        let band = Pred::And(vec![Pred::NonNeg(minus(j, i).plus(-lo)), Pred::NonNeg(minus(i, j).plus(hi))]);
        let y = b.define("y", &[i], Expr::sum(vec![j], band, Expr::mul(read(v, &[j]), value(minus(j, i)))));
        b.result(y);
        b.program
    };
    for (lo, hi, width) in [(-1, 1, 3), (-3, 0, 4), (2, 4, 3)] {
        let (_, report) = rewritten(&build(lo, hi), pipeline::BEFORE);
        assert!(report.fired(window::NAME, "y"), "{report:#?}");
        assert!(report.algorithms.iter().any(|a| a.text == format!("window of {width}")), "{report:#?}");
    }
    let (_, report) = rewritten(&build(-10, 0), pipeline::BEFORE);
    assert!(!report.fired(window::NAME, "y"), "{report:#?}");
}

/// A mask on the weights reaches the sum that reads them; two axes give a rectangle.
#[test]
fn masks_behind_definitions() {
    let mut g = grid(1, 9, 11, 2);
    let dot = g.dot(|e| e);
    let pairs = g.pairs();
    let near = |n: usize| {
        let far = Expr::new(Elem::Bool, Node::Binary(BinaryOp::Lt, abs(value(minus(g.i[n], g.j[n]))), num(2.0)));
        Pred::Value(far)
    };
    let body = Expr::select(Pred::And(vec![near(0), near(1)]), exp(read(dot, &pairs)), num(0.0));
    let p = g.b.define("p", &pairs, body);
    let y = g.weighted("y", read(p, &pairs));
    g.b.result(y);
    let (_, report) = rewritten(&g.b.program, pipeline::BEFORE);
    assert!(report.algorithms.iter().any(|a| a.site == "main.y" && a.text == "window of 9 (3 x 3)"), "{report:#?}");
}

/// A window as the author writes it, phantom keys and all.
#[test]
fn written_windows_are_told() {
    let mut b = Build::new();
    let v = b.input("v", &[6, 5]);
    let (y, x, oy, ox) = (b.var("y", 6), b.var("x", 5), b.var("oy", 3), b.var("ox", 3));
    let at = vec![Index::from(y).add(&oy.into()).plus(-1), Index::from(x).add(&ox.into()).plus(-1)];
    let s = b.define("s", &[y, x], sum(&[oy, ox], Expr::read_or_zero(Elem::F64, v, at)));
    b.result(s);
    let (_, report) = rewritten(&b.program, pipeline::BEFORE);
    assert!(report.algorithms.iter().any(|a| a.text == "window of 9 (3 x 3)"), "{report:#?}");
}

/// The normaliser leaves the sum, through the definition of the weights, and so does the condition that a row is not empty.
#[test]
fn normalisers_leave_the_sum() {
    let mut g = grid(2, 3, 5, 2);
    let dot = g.dot(|e| e);
    let (pairs, rows) = (g.pairs(), vec![g.h, g.i[0], g.i[1]]);
    let e = g.b.define("e", &pairs, exp(read(dot, &pairs)));
    let l = g.b.define("l", &rows, sum(&g.j.clone(), read(e, &pairs)));
    let some = Pred::Value(Expr::new(Elem::Bool, Node::Binary(BinaryOp::Gt, read(l, &rows), num(0.0))));
    let p = Expr::select(some, Expr::div(read(e, &pairs), read(l, &rows)), num(0.0));
    let p = g.b.define("p", &pairs, p);
    let y = g.weighted("y", read(p, &pairs));
    g.b.result(y);
    let (after, report) = rewritten(&g.b.program, &alone("factors", hoist::factors));
    assert!(report.fired("hoist factors", "y"), "{report:#?}");
    assert_eq!(shapes_of(&after, "y.sum").len(), 1);
}

/// A cosine of the row alone is computed once a row.
#[test]
fn costly_parts_of_fewer_indices() {
    let mut b = Build::new();
    let x = b.input("x", &[7, 13]);
    let (i, c) = (b.var("i", 7), b.var("c", 13));
    let y = b.define("y", &[i, c], Expr::mul(read(x, &[i, c]), cos(value(i.into()))));
    b.result(y);
    let (after, report) = rewritten(&b.program, &alone("hoist", hoist::subexpressions));
    assert!(report.fired("hoist subexpression", "y"), "{report:#?}");
    assert_eq!(shapes_of(&after, "y.of"), vec![vec![7]]);
}

/// What is read under a condition stays under it, in the smaller definition as well.
#[test]
fn costly_parts_under_a_condition() {
    let mut b = Build::new();
    let (x, z) = (b.input("x", &[7]), b.input("z", &[7, 5, 4]));
    let (i, k, c) = (b.var("i", 7), b.var("k", 5), b.var("c", 4));
    let next = Index::from(i).plus(1);
    let inside = Pred::NonNeg(Index::from(6).sub(&next));
    let costly = Expr::mul(cos(read_at(x, vec![next])), cos(value(k.into())));
    let part = Expr::select(inside, costly, num(0.0));
    let y = b.define("y", &[i, k, c], Expr::mul(read(z, &[i, k, c]), part));
    b.result(y);
    let (after, report) = rewritten(&b.program, &alone("hoist", hoist::subexpressions));
    assert!(report.fired("hoist subexpression", "y"), "{report:#?}");
    // The cosine of `k` needs no condition.
    assert_eq!(shapes_of(&after, "y.of"), vec![vec![5], vec![7, 5]]);
}
