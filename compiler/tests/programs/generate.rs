//! Random programs.

use crate::build::*;
use foveate_compiler::ir::*;

/// How many random programs are tried: `PROPTEST_CASES`, or as many as usual.
pub fn cases(usual: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

/// Draws numbers from a list that proptest shrinks.
struct Draw<'a> {
    from: &'a [u8],
    at: usize,
}

impl Draw<'_> {
    fn below(&mut self, n: usize) -> usize {
        let x = self.from.get(self.at).copied().unwrap_or(0) as usize;
        self.at += 1;
        x % n
    }
}

/// Index variables of a few axes, and tensors with the size of each dimension.
struct World {
    b: Build,
    tensors: Vec<(TensorId, Vec<usize>)>,
}

const SIZES: [usize; 4] = [1, 3, 4, 6];

fn index(d: &mut Draw, vars: &[(VarId, usize)], n: usize) -> (Index, Bounds) {
    // A variable of the right size where there is one, else anything, guarded.
    let fitting: Vec<VarId> = vars.iter().filter(|(_, s)| *s <= n).map(|(v, _)| *v).collect();
    let any = |d: &mut Draw| vars[d.below(vars.len())].0;
    match d.below(8) {
        0 => (Index::from(d.below(n) as i64), Bounds::Inside),
        1 => (minus(any(d), any(d)).plus(d.below(3) as i64), Bounds::Zero),
        2 => (Index::from(any(d)).scale(2).plus(-1), Bounds::Zero),
        3 => (Index::atom(Atom::Mod(Box::new(Index::from(any(d)).add(&any(d).into())), n as i64)), Bounds::Inside),
        4 => (Index::atom(Atom::Div(Box::new(any(d).into()), 2)), Bounds::Zero),
        5 => {
            let e = Index::from(any(d)).add(&any(d).into()).plus(-1);
            (Index::atom(Atom::Clamp(Box::new(e), 0, n as i64 - 1)), Bounds::Inside)
        }
        _ if fitting.is_empty() => (Index::from(0), Bounds::Inside),
        _ => (fitting[d.below(fitting.len())].into(), Bounds::Inside),
    }
}

fn pred(d: &mut Draw, vars: &[(VarId, usize)]) -> Pred {
    let any = |d: &mut Draw| vars[d.below(vars.len())].0;
    match d.below(5) {
        0 => Pred::NonNeg(minus(any(d), any(d))),
        1 => Pred::And(vec![Pred::NonNeg(minus(any(d), any(d)).plus(1)), Pred::NonNeg(minus(any(d), any(d)).plus(1))]),
        2 => Pred::Zero(minus(any(d), any(d))),
        3 => Pred::Not(Box::new(pred(d, vars))),
        _ => Pred::Or(vec![Pred::NonNeg(Index::from(any(d)).plus(-1)), Pred::Zero(Index::from(any(d)))]),
    }
}

fn expr(d: &mut Draw, w: &World, vars: &[(VarId, usize)], depth: usize) -> Expr {
    let leaf = depth == 0;
    match d.below(if leaf { 4 } else { 12 }) {
        0 => num([0.0, 0.5, 1.0, -2.0][d.below(4)]),
        1 if !vars.is_empty() => value(minus(vars[d.below(vars.len())].0, vars[d.below(vars.len())].0)),
        1..=3 => {
            let (t, shape) = w.tensors[d.below(w.tensors.len())].clone();
            if vars.is_empty() && !shape.is_empty() {
                return Expr::read(Elem::F64, t, shape.iter().map(|_| Index::from(0)).collect());
            }
            let mut bounds = Bounds::Inside;
            let at = shape
                .iter()
                .map(|&n| {
                    let (i, b) = index(d, vars, n);
                    if b == Bounds::Zero {
                        bounds = Bounds::Zero;
                    }
                    i
                })
                .collect();
            Expr::new(Elem::F64, Node::Read { tensor: t, at, bounds })
        }
        4 | 5 => Expr::add(expr(d, w, vars, depth - 1), expr(d, w, vars, depth - 1)),
        6 => Expr::sub(expr(d, w, vars, depth - 1), expr(d, w, vars, depth - 1)),
        7 | 8 => Expr::mul(expr(d, w, vars, depth - 1), expr(d, w, vars, depth - 1)),
        9 => Expr::unary(
            [UnaryOp::Cos, UnaryOp::Tanh, UnaryOp::Neg, UnaryOp::Abs][d.below(4)],
            expr(d, w, vars, depth - 1),
        ),
        10 => relu(expr(d, w, vars, depth - 1)),
        _ if vars.is_empty() => num(1.5),
        _ => Expr::select(pred(d, vars), expr(d, w, vars, depth - 1), expr(d, w, vars, depth - 1)),
    }
}

/// The program that a list of choices makes.
pub fn program(seed: &[u8]) -> Program {
    let mut d = Draw { from: seed, at: 0 };
    let mut w = World { b: Build::new(), tensors: Vec::new() };
    for (n, name) in ["x", "y", "z"].iter().enumerate() {
        let shape: Vec<usize> = (0..1 + n % 3).map(|_| SIZES[d.below(4)]).collect();
        let t = if n == 2 { w.b.param(name, &shape) } else { w.b.input(name, &shape) };
        w.tensors.push((t, shape));
    }
    let definitions = 3 + d.below(5);
    for n in 0..definitions {
        let outer: Vec<(VarId, usize)> = (0..d.below(4))
            .map(|k| {
                let size = SIZES[d.below(4)];
                (w.b.var(&format!("a{k}"), size), size)
            })
            .collect();
        let mut all = outer.clone();
        let reduce = d.below(3) > 0;
        let mut inner = Vec::new();
        if reduce {
            for k in 0..1 + d.below(2) {
                let size = SIZES[d.below(4)];
                let v = w.b.var(&format!("r{k}"), size);
                inner.push(v);
                all.push((v, size));
            }
        }
        let mut body = expr(&mut d, &w, &all, 3);
        if reduce {
            let op = [Monoid::Sum, Monoid::Sum, Monoid::Sum, Monoid::Prod, Monoid::Min][d.below(5)];
            // The minimum of nothing is infinite, and the IR's algebra is that of the reals.
            let whole = op == Monoid::Min || d.below(2) == 0;
            let guard = if whole { Pred::True } else { pred(&mut d, &all) };
            body = Expr::reduce(op, inner, guard, body);
        }
        let vars: Vec<VarId> = outer.iter().map(|(v, _)| *v).collect();
        let shape = outer.iter().map(|(_, s)| *s).collect();
        let name = format!("d{n}");
        // Now and then the last two dimensions are merged into one.
        let (t, shape) = match (vars.as_slice(), d.below(4)) {
            ([first @ .., a, c], 0) => {
                let sizes: Vec<usize> = outer.iter().map(|(_, s)| *s).collect();
                let (sa, sc) = (sizes[sizes.len() - 2], sizes[sizes.len() - 1]);
                let mut shape = sizes[..sizes.len() - 2].to_vec();
                shape.push(sa * sc);
                let mut place = at(first);
                place.push(Index::from(*a).scale(sc as i64).add(&(*c).into()));
                (w.b.define_clauses(&name, &shape, vec![Clause { vars: vars.clone(), at: place, body }]), shape)
            }
            _ => (w.b.define(&name, &vars, body), shape),
        };
        w.tensors.push((t, shape));
        if d.below(3) == 0 || n + 1 == definitions {
            w.b.result(t);
        }
    }
    w.b.program
}
