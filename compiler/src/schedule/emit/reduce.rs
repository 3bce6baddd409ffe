//! Reductions: loops that accumulate in registers.

use super::exprs::{first, machine_elem, second};
use super::{Scope, Speculation};
use crate::ir::index::Sizes;
use crate::ir::{BinaryOp, Bounds, Elem, Expr, Index, Monoid, Node, Pred, Reduction, VarId};
use crate::loops::{Op, RegId, Stmt, Type, ValueId};
use crate::schedule::join::{self, Terms};

/// A reduction over no more points than this is written out: what neighbouring results read together is then loaded once.
const WRITTEN_OUT: usize = 16;
/// Unless that makes more of it than so many nodes.
const LENGTHY: usize = 600;
/// Chains of a single sum.
const CHAINS: usize = 4;
/// A sum has more than one chain from so many steps a chain on.
const SHORT: usize = 4;
/// So many points of a sum have their common conditions tested once.
const TOGETHER: usize = 4;
/// And if its body has no more nodes than this: every chain has a copy of it.
const SMALL: usize = 24;

impl Scope<'_> {
    /// The values of reductions of the same form.
    pub(super) fn reduce(&mut self, points: &[&Reduction]) -> Vec<ValueId> {
        let r = points[0];
        let along = self.runs_along(r).then(|| *r.vars.last().expect("what runs along a row has a variable"));
        let positional = matches!(r.op, Monoid::ArgMax | Monoid::ArgMin);
        let elem = machine_elem(r.body.elem);
        let neutral = match r.op {
            Monoid::ArgMax => f64::NEG_INFINITY,
            Monoid::ArgMin => f64::INFINITY,
            other => other.neutral(),
        };
        // One register a point and chain; a scalar one if no lane differs.
        let chains = self.chains(points, along);
        let (mut regs, mut wheres) = (vec![Vec::new(); chains], Vec::new());
        for p in points {
            let wide = along.is_some() || self.varies(&p.body) || self.pred_varies(&p.guard);
            let lanes = if wide { self.lanes } else { 1 };
            let start = self.op(Op::Const(neutral.to_bits()), Type { elem, lanes: 1 });
            let start = if lanes > 1 { self.widen(start) } else { start };
            for chain in &mut regs {
                chain.push(self.reg(start));
            }
            if positional {
                let none = self.int(-1);
                let none = if lanes > 1 { self.widen(none) } else { none };
                wheres.push(self.reg(none));
            }
        }
        let shortened = r.vars.iter().any(|&v| self.is_shortened(v));
        let written_out = !shortened && along.is_none() && !positional && self.can_be_written_out(points);
        if written_out {
            self.write_out(points, &regs[0], &r.vars, &mut Vec::new());
        }
        let (last, outer) = match r.vars.split_last() {
            Some((&last, outer)) => (Some(last), outer),
            None => (None, &r.vars[..]),
        };
        let run = |s: &mut Self, points: &[&Reduction], outer: &[VarId]| {
            s.loops(outer, &mut |s| match last {
                None => s.accumulate_under(points, &regs[0], &wheres),
                Some(v) => {
                    let steps = s.view.size_of(v) as usize / if along.is_some() { s.lanes as usize } else { 1 };
                    let step = |s: &mut Self, at: ValueId, regs: &[RegId]| {
                        s.bind(v, at);
                        match along {
                            Some(v) => s.vector_at(v, |s| s.accumulate_under(points, regs, &wheres)),
                            None => s.accumulate_under(points, regs, &wheres),
                        }
                    };
                    s.for_loop(v, steps / chains, |s| {
                        let counter = s.value_of(v);
                        let stride = s.int(chains as i64);
                        let first = s.int_op(BinaryOp::Mul, counter, stride);
                        for (n, regs) in regs.iter().enumerate() {
                            let n = s.int(n as i64);
                            let at = s.int_op(BinaryOp::Add, n, first);
                            step(s, at, regs);
                        }
                    });
                    for (n, regs) in regs.iter().enumerate().take(steps % chains) {
                        let at = s.int((steps / chains * chains + n) as i64);
                        step(s, at, regs);
                    }
                }
            });
        };
        // What conditions decide by a variable of few values is written out for each of them.
        let few = |v: &VarId| self.view.size_of(*v) <= join::TERMS as i64 && !shortened && r.guard == Pred::True;
        let bodies = || points.iter().map(|p| &p.body);
        let terms = outer.first().copied().filter(few).and_then(|v| Terms::shared(v, bodies()));
        match terms {
            _ if written_out => {}
            None => run(self, points, outer),
            Some(terms) => {
                for k in 0..self.view.size_of(terms.var) {
                    let number = self.int(k);
                    self.bind(terms.var, number);
                    let at = |p: &&Reduction| Reduction { body: terms.at(self.view, &p.body, k), ..(*p).clone() };
                    let here: Vec<Reduction> = points.iter().map(at).collect();
                    run(self, &here.iter().collect::<Vec<_>>(), &outer[1..]);
                }
            }
        }
        let op = combine(r.op);
        let values = |s: &mut Self, regs: &[RegId]| -> Vec<ValueId> {
            let get = |&reg: &RegId| s.op(Op::Get(reg), s.kernel.regs[reg.0 as usize]);
            regs.iter().map(get).collect()
        };
        if positional {
            return values(self, &wheres);
        }
        // Neighbours are combined until one is left.
        let mut all: Vec<Vec<ValueId>> = regs.iter().map(|regs| values(self, regs)).collect();
        while all.len() > 1 {
            let mut pair = |p: &[Vec<ValueId>]| match p {
                [a, b] => a.iter().zip(b).map(|(&a, &b)| self.binary(op, a, b)).collect(),
                rest => rest[0].clone(),
            };
            all = all.chunks(2).map(&mut pair).collect();
        }
        let mut fold = |value| {
            let ty = self.ty(value);
            if along.is_some() { self.op(Op::Fold(op, value), Type { lanes: 1, ..ty }) } else { value }
        };
        all.remove(0).into_iter().map(&mut fold).collect()
    }

    fn can_be_written_out(&self, points: &[&Reduction]) -> bool {
        let r = points[0];
        let n: usize = r.vars.iter().map(|&v| self.view.size_of(v) as usize).product();
        let nodes = nodes(&r.body);
        n > 1 && n <= WRITTEN_OUT && nodes < SMALL && n * nodes * points.len() <= LENGTHY
    }

    /// Accumulates point by point, with numbers for the variables.
    fn write_out(&mut self, points: &[&Reduction], regs: &[RegId], vars: &[VarId], at: &mut Vec<(VarId, i64)>) {
        if let Some((&v, rest)) = vars.split_first() {
            for n in 0..self.view.size_of(v) {
                at.push((v, n));
                self.write_out(points, regs, rest, at);
                at.pop();
            }
            return;
        }
        let number = |v: VarId| at.iter().find(|(w, _)| *w == v).map(|(_, n)| Index::from(*n));
        let here: Vec<Reduction> = points
            .iter()
            .map(|p| Reduction {
                op: p.op,
                vars: Vec::new(),
                guard: p.guard.subst(&number, self.view),
                body: p.body.subst_vars(&number, self.view),
            })
            .collect();
        self.accumulate_under(&here.iter().collect::<Vec<_>>(), regs, &[]);
    }

    /// The conditions, of those that points have, that all points and lanes share. Several points skip what they would do without them better than that
    /// each of them selects.
    fn common_conditions(&self, points: &[&Reduction], conditions: impl Fn(&Self, &Reduction) -> Pred) -> Vec<Pred> {
        if points.len() < TOGETHER || points[0].vars.is_empty() {
            return Vec::new();
        }
        let of = |p: &Reduction| conditions(self, p).conjuncts().into_iter().cloned().collect::<Vec<Pred>>();
        let mut common = of(points[0]);
        for p in &points[1..] {
            let own = of(p);
            common.retain(|c| own.contains(c));
        }
        common.retain(|c| !self.assumed.contains(c) && !self.pred_varies(c));
        common
    }

    /// The conditions without which a factor is 0, and with it the product, whatever the others are.
    fn zero_unless(&self, e: &Expr) -> Pred {
        match &*e.node {
            Node::Binary(BinaryOp::Mul, a, b) => Pred::and([self.zero_unless(a), self.zero_unless(b)]),
            Node::Select(p, _, zero) if matches!(&*zero.node, Node::Const(0)) => p.clone(),
            Node::Read { tensor, at, bounds: Bounds::Zero } => self.inside(*tensor, at),
            _ => Pred::True,
        }
    }

    /// The number of chains of additions that take turns. A single one would wait for each addition before the next, and its rounding
    /// errors would grow with its length.
    fn chains(&self, points: &[&Reduction], along: Option<VarId>) -> usize {
        let r = points[0];
        let Some(&last) = r.vars.last() else { return 1 };
        let steps = self.view.size_of(last) as usize / if along.is_some() { self.lanes as usize } else { 1 };
        if self.is_shortened(last) || (along.is_none() && self.can_be_written_out(points)) {
            return 1;
        }
        let simple = r.op == Monoid::Sum && nodes(&r.body) <= SMALL;
        let chains = if simple { CHAINS / points.len() } else { 1 };
        if steps >= SHORT * chains { chains.max(1) } else { 1 }
    }

    /// Accumulates under the reductions' guards. What all points and lanes share of them is branched on; the rest selects, at the points that have
    /// any.
    pub(in crate::schedule) fn accumulate_under(&mut self, points: &[&Reduction], regs: &[RegId], wheres: &[RegId]) {
        let guard = &points[0].guard;
        let same = points.iter().all(|p| p.guard == *guard);
        if same && *guard != Pred::True && !self.pred_varies(guard) {
            let cond = self.test(guard);
            let (then, ()) = self.under([guard], |s| s.block(|s| s.accumulate(points, regs, wheres, true)));
            return self.push(Stmt::If { cond, then, otherwise: Vec::new() });
        }
        let common = match same {
            true => Vec::new(),
            false => self.common_conditions(points, |s, p| s.unproven(&p.guard)),
        };
        if !common.is_empty() {
            return self.branch(common, |s| {
                let left: Vec<Reduction> =
                    points.iter().map(|p| Reduction { guard: s.unproven(&p.guard), ..(*p).clone() }).collect();
                s.accumulate_under(&left.iter().collect::<Vec<_>>(), regs, wheres);
            });
        }
        let free = |p: &&Reduction| p.guard == Pred::True;
        if points.len() >= TOGETHER && wheres.is_empty() && !same && points.iter().any(free) {
            for wanted in [true, false] {
                let chosen = points.iter().zip(regs).filter(|(p, _)| free(p) == wanted);
                let (points, regs): (Vec<&Reduction>, Vec<RegId>) = chosen.map(|(p, r)| (*p, *r)).unzip();
                self.under(points.iter().map(|p| &p.guard), |s| s.accumulate(&points, &regs, &[], false));
            }
            return;
        }
        self.under(points.iter().map(|p| &p.guard), |s| s.accumulate(points, regs, wheres, false));
    }

    /// Does something where conditions hold that no lane has for itself.
    fn branch(&mut self, conditions: Vec<Pred>, f: impl FnOnce(&mut Self)) {
        let pred = Pred::and(conditions.iter().cloned());
        let cond = self.test(&pred);
        let before = self.assumed.len();
        self.assumed.extend(conditions);
        let (then, ()) = self.under([&pred], |s| s.block(f));
        self.assumed.truncate(before);
        self.push(Stmt::If { cond, then, otherwise: Vec::new() });
    }

    fn accumulate(&mut self, points: &[&Reduction], regs: &[RegId], wheres: &[RegId], taken: bool) {
        let r = points[0];
        let sum = r.op == Monoid::Sum && r.body.elem != Elem::Bool;
        let common = match sum {
            true => self.common_conditions(points, |s, p| s.zero_unless(&p.body)),
            false => Vec::new(),
        };
        if !common.is_empty() {
            return self.branch(common, |s| s.accumulate(points, regs, wheres, taken));
        }
        let guarded = !taken && points.iter().any(|p| p.guard != Pred::True);
        let was = self.speculative;
        for p in points.iter().filter(|p| !taken && p.guard != Pred::True) {
            let doubt = if self.pred_varies(&p.guard) { Speculation::Lanes } else { Speculation::Whole };
            self.speculative = self.speculative.max(doubt);
        }
        let product = match (r.op, &*r.body.node) {
            (Monoid::Sum, Node::Binary(BinaryOp::Mul, ..)) => r.body.elem != Elem::Bool,
            _ => false,
        };
        if product {
            let left: Vec<Expr> = points.iter().map(|p| first(&p.body.node).clone()).collect();
            let right: Vec<Expr> = points.iter().map(|p| second(&p.body.node).clone()).collect();
            let (left, right) = (self.eval_many(&left), self.eval_many(&right));
            for (i, &reg) in regs.iter().enumerate() {
                let ty = self.kernel.regs[reg.0 as usize];
                let sum = self.op(Op::Get(reg), ty);
                let mut new = self.fma(left[i], right[i], sum);
                if guarded && points[i].guard != Pred::True {
                    let cond = self.test(&points[i].guard);
                    new = self.select(cond, new, sum);
                }
                let new = if ty.lanes > 1 { self.widen(new) } else { new };
                self.push(Stmt::Set(reg, new));
            }
            self.speculative = was;
            return;
        }
        let bodies: Vec<Expr> = points.iter().map(|p| p.body.clone()).collect();
        let values = self.eval_many(&bodies);
        for (i, &reg) in regs.iter().enumerate() {
            let ty = self.kernel.regs[reg.0 as usize];
            let sum = self.op(Op::Get(reg), ty);
            let cond = (guarded && points[i].guard != Pred::True).then(|| self.test(&points[i].guard));
            if let Some(&place) = wheres.get(i) {
                let op = if r.op == Monoid::ArgMax { BinaryOp::Gt } else { BinaryOp::Lt };
                let mut better = self.binary(op, values[i], sum);
                if let Some(c) = cond {
                    better = self.binary(BinaryOp::And, better, c);
                }
                let flat =
                    r.vars.iter().fold(Index::default(), |sum, &v| sum.scale(self.view.size_of(v)).add(&v.into()));
                let p = self.position(&flat);
                let here = self.flatten(p);
                let place_ty = self.kernel.regs[place.0 as usize];
                let old = self.op(Op::Get(place), place_ty);
                let new = self.select(better, here, old);
                self.push(Stmt::Set(place, new));
                let best = self.select(better, values[i], sum);
                self.push(Stmt::Set(reg, best));
                continue;
            }
            let op = combine(r.op);
            let new = self.binary(op, sum, values[i]);
            let new = match cond {
                Some(c) => self.select(c, new, sum),
                None => new,
            };
            let new = if ty.lanes > 1 { self.widen(new) } else { new };
            self.push(Stmt::Set(reg, new));
        }
        self.speculative = was;
    }
}

/// Number of nodes of an expression; that of a reduction counts as many.
fn nodes(e: &Expr) -> usize {
    let mut n = if matches!(&*e.node, Node::Reduce(_)) { SMALL } else { 1 };
    e.for_each_child(&mut |c| n += nodes(c));
    n
}

/// The operation that combines two values of a reduction.
pub(in crate::schedule) fn combine(op: Monoid) -> BinaryOp {
    match op {
        Monoid::Sum => BinaryOp::Add,
        Monoid::Prod => BinaryOp::Mul,
        Monoid::Max | Monoid::ArgMax => BinaryOp::Max,
        Monoid::Min | Monoid::ArgMin => BinaryOp::Min,
        Monoid::Any => BinaryOp::Or,
        Monoid::All => BinaryOp::And,
    }
}
