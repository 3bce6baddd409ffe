//! Gradients of programs made by hand against finite differences.

use crate::ir::*;
use crate::testing::{Make, attention, check_gradients, rd};

fn at(t: TensorId, at: Vec<Index>) -> Expr {
    Expr::read(Elem::F32, t, at)
}

#[test]
fn products_and_pointwise() {
    for (n, c, o) in [(3, 5, 2), (1, 1, 1), (7, 2, 3)] {
        let mut m = Make::new();
        let (x, w) = (m.input("x", &[n, c]), m.param("w", &[o, c]));
        let (i, j, k) = (m.var(n), m.var(o), m.var(c));
        let y = m.def("y", &[i, j], Expr::sum(vec![k], Pred::True, Expr::mul(rd(x, &[i, k]), rd(w, &[j, k]))));
        let (i, j) = (m.var(n), m.var(o));
        let z = Expr::unary(UnaryOp::Erf, Expr::mul(rd(y, &[i, j]), rd(y, &[i, j])));
        let z = m.def("z", &[i, j], Expr::div(z, Expr::unary(UnaryOp::Exp, rd(y, &[i, j]))));
        m.result(z);
        check_gradients(&m.program());
    }
}

#[test]
fn softmax_attention() {
    for (b, n, h, d) in [(2, (2, 3), 2, 3), (1, (1, 5), 1, 1)] {
        let mut m = Make::new();
        let (y, p) = attention(&mut m, b, n, h, d);
        m.result(y);
        m.result(p);
        check_gradients(&m.program());
    }
}

#[test]
fn windows_with_zero_border_stride_and_dilation() {
    for (n, out, k, stride, dilation, pad) in
        [(7, 7, 3, 1, 1, 1), (9, 5, 3, 2, 1, 1), (11, 11, 3, 1, 2, 2), (8, 2, 4, 4, 1, 0)]
    {
        let mut m = Make::new();
        let (x, w) = (m.input("x", &[n]), m.param("w", &[k]));
        let (i, o) = (m.var(out), m.var(k));
        let j = Index::from(i).scale(stride).add(&Index::from(o).scale(dilation)).plus(-pad);
        let body = Expr::mul(Expr::read_or_zero(Elem::F32, x, vec![j]), rd(w, &[o]));
        let y = m.def("y", &[i], Expr::sum(vec![o], Pred::True, body));
        m.result(y);
        check_gradients(&m.program());
    }
}

#[test]
fn clamped_window() {
    let (n, k) = (7usize, 3usize);
    let mut m = Make::new();
    let x = m.input("x", &[n]);
    let (i, o) = (m.var(n), m.var(k));
    let sizes = VarSizes { vars: &m.f.vars, axes: &m.program.axes };
    let j = Index::from(i).plus(-1).clamped(0, (n - k) as i64, &sizes).add(&o.into());
    let y = m.def("y", &[i, o], Expr::mul(at(x, vec![j.clone()]), rd(x, &[i])));
    m.result(y);
    check_gradients(&m.program());
}

#[test]
fn merged_and_divided_indices() {
    let (h, d) = (3usize, 4usize);
    let mut m = Make::new();
    let (x, w) = (m.input("x", &[h, d]), m.param("w", &[h * d]));
    let c = m.var(h * d);
    let sizes = VarSizes { vars: &m.f.vars, axes: &m.program.axes };
    let (q, r) = (Index::from(c).div(d as i64, &sizes), Index::from(c).modulo(d as i64, &sizes));
    let y = m.def("y", &[c], Expr::mul(at(x, vec![q.clone(), r]), rd(w, &[c])));
    let (a, b) = (m.var(h), m.var(d));
    let z = m.def("z", &[a, b], at(w, vec![Index::from(a).scale(d as i64).add(&b.into())]));
    // A quotient alone: every element is read d times.
    let e = m.var(h * d);
    let q = Index::from(e).div(d as i64, &VarSizes { vars: &m.f.vars, axes: &m.program.axes });
    let zero = Index::from(0);
    let u = m.def("u", &[e], Expr::mul(at(x, vec![q, zero]), rd(w, &[e])));
    for t in [y, z, u] {
        m.result(t);
    }
    check_gradients(&m.program());
}

#[test]
fn concatenation_and_relative_table() {
    let (gy, gx) = (2usize, 3usize);
    let n = gy * gx;
    let mut m = Make::new();
    let (x, cls) = (m.input("x", &[gy, gx]), m.param("cls", &[1]));
    let dim = m.dims(&[n + 1]);
    let t = m.f.new_tensor("tokens", Elem::F32, dim, None);
    let (c, iy, ix) = (m.var(1), m.var(gy), m.var(gx));
    let place = Index::from(iy).scale(gx as i64).add(&ix.into()).plus(1);
    let clauses = vec![
        Clause { vars: vec![c], at: vec![c.into()], body: rd(cls, &[c]) },
        Clause { vars: vec![iy, ix], at: vec![place], body: Expr::mul(rd(x, &[iy, ix]), rd(x, &[iy, ix])) },
    ];
    m.f.body.push(Stmt::Define(Definition { tensor: t, clauses, keep: Keep::Auto }));
    let table = m.param("table", &[2 * n + 1]);
    let (i, j) = (m.var(n + 1), m.var(n + 1));
    let offset = Index::from(j).sub(&i.into()).plus(n as i64);
    let y = m.def("y", &[i, j], Expr::mul(Expr::mul(rd(t, &[i]), rd(t, &[j])), at(table, vec![offset])));
    m.result(y);
    check_gradients(&m.program());
}

#[test]
fn extremes_products_and_keys() {
    let mut m = Make::new();
    let x = m.input("x", &[3, 5]);
    let (i, j) = (m.var(3), m.var(5));
    let hi = m.def("hi", &[i], Expr::reduce(Monoid::Max, vec![j], Pred::True, rd(x, &[i, j])));
    let (i, j) = (m.var(3), m.var(5));
    let all = m.def("all", &[i], Expr::reduce(Monoid::Prod, vec![j], Pred::True, rd(x, &[i, j])));
    // Sums by a key that is read from a tensor.
    let (i, j) = (m.var(3), m.var(5));
    let key = Expr::new(Elem::I32, Node::Index(Index::from(j).modulo(2, &(|_: VarId| 5i64))));
    let key = m.def("key", &[i, j], key);
    let (i, j, k) = (m.var(3), m.var(5), m.var(2));
    let label = Expr::read(Elem::I32, key, vec![i.into(), j.into()]);
    let guard = Pred::Zero(Index::atom(Atom::Data(Box::new(label))).sub(&k.into()));
    let by = m.def("by", &[i, k], Expr::sum(vec![j], guard, Expr::mul(rd(x, &[i, j]), rd(x, &[i, j]))));
    for t in [hi, all, by] {
        m.result(t);
    }
    check_gradients(&m.program());
}

#[test]
fn calls_are_halved() {
    let mut m = Make::new();
    // y = sum over k of x[i, k] w[j, k], then squared: called twice with different parameters.
    let (x, w) = (m.input("x", &[3, 3]), m.param("w", &[3, 3]));
    let (i, j, k) = (m.var(3), m.var(3), m.var(3));
    let s = m.def("s", &[i, j], Expr::sum(vec![k], Pred::True, Expr::mul(rd(x, &[i, k]), rd(w, &[j, k]))));
    let (i, j) = (m.var(3), m.var(3));
    let y = m.def("y", &[i, j], Expr::mul(rd(s, &[i, j]), Expr::unary(UnaryOp::Sin, rd(s, &[i, j]))));
    m.result(y);
    let mut callee = m.program();
    callee.functions[0].name = "block".into();
    let dims = callee.functions[0].tensor(x).dims.clone();

    let mut main =
        Function { name: "main".into(), tensors: vec![], vars: vec![], args: vec![], body: vec![], results: vec![] };
    let mut arg = |name: &str, role: ArgRole| {
        let t = main.new_tensor(name, Elem::F32, dims.clone(), None);
        main.args.push(Arg { tensor: t, role });
        t
    };
    let x = arg("x", ArgRole::Input("x".into()));
    let (a, b) = (arg("a", ArgRole::Param("a".into())), arg("b", ArgRole::Param("b".into())));
    let mid = main.new_tensor("mid", Elem::F32, dims.clone(), None);
    let end = main.new_tensor("end", Elem::F32, dims.clone(), None);
    for (w, from, to) in [(a, x, mid), (b, mid, end)] {
        main.body.push(Stmt::Call(Call {
            function: FuncId(0),
            args: vec![from, w],
            results: vec![to],
            site: "block".into(),
        }));
    }
    main.results.push(FnResult { tensor: end, role: ResultRole::Output("end".into()) });
    callee.functions.push(main);
    callee.entry = FuncId(1);
    check_gradients(&callee);
}
