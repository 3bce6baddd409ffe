//! Hoisting: factors that a sum's variables do not enter leave the sum, and costly subexpressions that some variables of a
//! definition do not enter become smaller definitions.

use super::{Cx, each_function, inline, walk};
use crate::ir::{Expr, Monoid, Node, Pred, Program, Reduction, TensorId, VarId};

/// Factors out of sums.
pub fn factors(program: &mut Program, report: &mut super::Report) {
    each_function(program, report, &mut |cx| {
        let mut at = 0;
        while at < cx.function.body.len() {
            at += 1 + factor_out(cx, at);
        }
    });
}

/// Costly subexpressions with fewer variables.
pub fn subexpressions(program: &mut Program, report: &mut super::Report) {
    each_function(program, report, &mut |cx| {
        let mut at = 0;
        while at < cx.function.body.len() {
            at += 1 + shrink(cx, at);
        }
    });
}

/// Work from which a value is computed once for all its readers.
const SHARED: f64 = 4.0;

/// What leaves a sum: factors, divisors, a sign, and conditions outside which the sum is 0.
#[derive(Default)]
struct Invariant {
    numerator: Vec<Expr>,
    denominator: Vec<Expr>,
    conditions: Vec<Pred>,
    negative: bool,
}

impl Invariant {
    fn is_empty(&self) -> bool {
        self.numerator.is_empty() && self.denominator.is_empty() && self.conditions.is_empty() && !self.negative
    }
}

fn factor_out(cx: &mut Cx, at: usize) -> usize {
    let Some(d) = cx.definition_at(at).cloned() else { return 0 };
    let mut inserted = 0;
    for (n, c) in d.clauses.iter().enumerate() {
        let Node::Reduce(r) = &*c.body.node else { continue };
        if r.op != Monoid::Sum || !walk::is_float(c.body.elem) {
            continue;
        }
        let made = cx.function.vars.len();
        let mut out = Invariant::default();
        let rest = peel(cx, &r.body, &r.vars, &mut out, 0);
        let guard = free_conditions(r, &rest, &mut out);
        if out.is_empty() {
            cx.function.vars.truncate(made);
            continue;
        }
        // What is left of the sum, over the variables that it still has.
        let guarded = r.guard != Pred::True || !out.conditions.is_empty();
        let guards: Vec<Pred> = match guarded {
            true => out.conditions.iter().map(|p| cx.relaxed_pred(p)).collect(),
            false => Vec::new(),
        };
        let free = |cx: &Cx, e: &Expr| if guarded { cx.relaxed(e) } else { e.clone() };
        let sum = free(cx, &Expr::sum(r.vars.clone(), guard, rest));
        let vars: Vec<VarId> = c.vars.iter().copied().filter(|&v| sum.uses(v)).collect();
        let name = cx.function.tensor(d.tensor).name.clone();
        let tensor = cx.outline(at + inserted, &format!("{name}.sum"), &vars, &sum);
        inserted += 1;
        let read = Expr::read(sum.elem, tensor, vars.iter().map(|&v| v.into()).collect());
        let sign = if out.negative { -1.0 } else { 1.0 };
        let mut numerator: Vec<Expr> = out.numerator.iter().map(|e| free(cx, e)).collect();
        numerator.push(read);
        let denominator: Vec<Expr> = out.denominator.iter().map(|e| free(cx, e)).collect();
        let body = walk::product(sum.elem, &numerator, &denominator, sign);
        let zero = Expr::constant(sum.elem, 0.0);
        cx.set_body(at + inserted, n, Expr::select(Pred::and(guards), body, zero));
        let count = out.numerator.len() + out.denominator.len() + out.conditions.len() + usize::from(out.negative);
        let reason = format!("{count} factors leave the sum over {}", cx.names(&r.vars));
        cx.fired("hoist factors", d.tensor, reason);
    }
    inserted
}

/// Conditions on the whole sum leave it where that costs no work: those on values (lanes compute both ways anyway), and those on
/// an index that the rest of the sum does not have. Gives the conditions that stay.
fn free_conditions(r: &Reduction, rest: &Expr, out: &mut Invariant) -> Pred {
    let (free, bound): (Vec<Pred>, Vec<Pred>) = r.guard.conjuncts().into_iter().cloned().partition(|p| {
        let mut absent = false;
        p.visit_vars(&mut |v| absent |= !rest.uses(v));
        !r.vars.iter().any(|&v| p.uses(v)) && (is_value(p) || absent)
    });
    out.conditions.extend(free);
    Pred::and(bound)
}

fn is_value(p: &Pred) -> bool {
    match p {
        Pred::Value(_) => true,
        Pred::Not(p) => is_value(p),
        _ => false,
    }
}

/// Removes what does not depend on the sum's variables; opens reads of pointwise definitions that have such factors.
fn peel(cx: &mut Cx, e: &Expr, vars: &[VarId], out: &mut Invariant, depth: usize) -> Expr {
    let (numerator, denominator, sign) = walk::factors(e);
    out.negative ^= sign < 0.0;
    let depends = |e: &Expr| vars.iter().any(|&v| e.uses(v));
    let mut kept = Vec::new();
    for f in numerator {
        if !depends(&f) {
            out.numerator.push(f);
            continue;
        }
        match &*f.node {
            Node::Select(p, a, b) if b.as_const() == Some(0.0) => {
                let (free, bound): (Vec<Pred>, Vec<Pred>) =
                    p.conjuncts().into_iter().cloned().partition(|p| !vars.iter().any(|&v| p.uses(v)));
                if free.is_empty() {
                    kept.push(f);
                    continue;
                }
                out.conditions.extend(free);
                let a = if bound.is_empty() { peel(cx, a, vars, out, depth) } else { a.clone() };
                kept.push(Expr::select(Pred::and(bound), a, b.clone()));
            }
            Node::Read { tensor, at, bounds } if depth < 3 => match open(cx, *tensor, at, *bounds) {
                Some(body) => {
                    let mut inner = Invariant::default();
                    let rest = peel(cx, &body, vars, &mut inner, depth + 1);
                    // A sign alone is not worth opening a definition.
                    inner.negative &= !(inner.numerator.is_empty() && inner.denominator.is_empty());
                    // What is left should be cheap: a costly value is better shared by its readers.
                    if inner.is_empty() || walk::work(&rest, &cx.sizes()) >= SHARED {
                        kept.push(f);
                    } else {
                        out.numerator.extend(inner.numerator);
                        out.denominator.extend(inner.denominator);
                        out.conditions.extend(inner.conditions);
                        out.negative ^= inner.negative;
                        kept.push(rest);
                    }
                }
                None => kept.push(f),
            },
            _ => kept.push(f),
        }
    }
    let (bound, free): (Vec<Expr>, Vec<Expr>) = denominator.into_iter().partition(depends);
    out.denominator.extend(free);
    walk::product(e.elem, &kept, &bound, 1.0)
}

/// The body of a pointwise definition of one clause that is a product or conditional.
fn open(cx: &mut Cx, tensor: TensorId, at: &[crate::ir::Index], bounds: crate::ir::Bounds) -> Option<Expr> {
    if bounds == crate::ir::Bounds::Zero {
        return None;
    }
    let d = cx.position(tensor).and_then(|p| cx.definition_at(p)).cloned()?;
    let [clause] = d.clauses.as_slice() else { return None };
    if walk::has_reduction(&clause.body) {
        return None;
    }
    let shape = matches!(
        &*clause.body.node,
        Node::Binary(crate::ir::BinaryOp::Mul | crate::ir::BinaryOp::Div, ..)
            | Node::Unary(crate::ir::UnaryOp::Neg, _)
            | Node::Select(..)
    );
    if shape { inline::inline(cx, &d, at, bounds) } else { None }
}

/// Work below which a subexpression is not worth a definition.
const COSTLY: f64 = 8.0;
/// How many times smaller its domain has to be.
const SMALLER: f64 = 4.0;

fn shrink(cx: &mut Cx, at: usize) -> usize {
    let Some(d) = cx.definition_at(at).cloned() else { return 0 };
    let mut inserted = 0;
    for (n, c) in d.clauses.iter().enumerate() {
        let mut made: Vec<(Expr, Expr)> = Vec::new();
        let mut walk = Shrink { cx, at: at + inserted, tensor: d.tensor, made: &mut made };
        let body = walk.visit(&c.body, &c.vars, false);
        let count = made.len();
        inserted += count;
        if count > 0 {
            cx.set_body(at + inserted, n, body);
        }
    }
    inserted
}

struct Shrink<'a, 'b> {
    cx: &'a mut Cx<'b>,
    at: usize,
    tensor: TensorId,
    made: &'a mut Vec<(Expr, Expr)>,
}

impl Shrink<'_, '_> {
    fn visit(&mut self, e: &Expr, scope: &[VarId], guarded: bool) -> Expr {
        if let Some(read) = self.outline(e, scope, guarded) {
            return read;
        }
        match &*e.node {
            Node::Reduce(Reduction { vars, guard, .. }) => {
                let scope: Vec<VarId> = scope.iter().chain(vars).copied().collect();
                let guarded = guarded || *guard != Pred::True;
                e.map_children(&mut |c| self.visit(c, &scope, guarded))
            }
            Node::Select(..) => e.map_children(&mut |c| self.visit(c, scope, true)),
            _ => e.map_children(&mut |c| self.visit(c, scope, guarded)),
        }
    }

    fn outline(&mut self, e: &Expr, scope: &[VarId], guarded: bool) -> Option<Expr> {
        if let Some((_, read)) = self.made.iter().find(|(known, _)| known == e) {
            return Some(read.clone());
        }
        // Expressions below a reduction or condition are visited with the scope and guard that they have.
        if walk::has_reduction(e) || walk::work(e, &self.cx.sizes()) < COSTLY {
            return None;
        }
        // Under a condition a read need only be inside where it holds.
        if guarded && !total(self.cx, e) {
            return None;
        }
        let mut vars = walk::free_vars(e);
        vars.sort_by_key(|v| scope.iter().position(|s| s == v));
        if self.cx.points(&vars) * SMALLER > self.cx.points(scope) {
            return None;
        }
        // What depends on much less leaves first; the rest may be cheap.
        let inside = guarded || matches!(&*e.node, Node::Select(..));
        let rest = e.map_children(&mut |c| self.visit(c, &vars, inside));
        if walk::work(&rest, &self.cx.sizes()) < COSTLY {
            return Some(rest.map_children(&mut |c| self.visit(c, scope, inside)));
        }
        let name = self.cx.function.tensor(self.tensor).name.clone();
        let tensor = self.cx.outline(self.at, &format!("{name}.of"), &vars, &rest);
        self.at += 1;
        let over = if vars.is_empty() { "nothing".to_owned() } else { self.cx.names(&vars) };
        let reason = format!("a subexpression depends on {over} only");
        self.cx.fired("hoist subexpression", self.tensor, reason);
        let read = Expr::read(e.elem, tensor, vars.iter().map(|&v| v.into()).collect());
        self.made.push((e.clone(), read.clone()));
        Some(read)
    }
}

/// Whether every read is inside its tensor whatever the variables are.
fn total(cx: &Cx, e: &Expr) -> bool {
    let sizes = cx.sizes();
    let mut all = true;
    e.visit_reads(&mut |t, at| {
        let shape = cx.shape(t);
        all &= at.iter().zip(&shape).all(|(i, &n)| i.range(&sizes).is_some_and(|(lo, hi)| lo >= 0 && hi < n));
    });
    all
}
