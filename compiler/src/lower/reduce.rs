//! Reductions and normalisers over their domains.

use foveate_dsl::Diagnostic;
use foveate_dsl::ast::{Binder, Expr as Ast, Name, NormaliseOp, ReduceOp, Span};

use super::expr::Val;
use super::forward::Bound;
use super::index::{Comp, IndexVal};
use crate::check::elaborator::Elaborator;
use crate::check::report::{R, suggest};
use crate::ir::{Atom, BinaryOp, Elem, Expr, Index, Monoid, Pred, UnaryOp, VarId};

impl<'a> Elaborator<'a> {
    /// `sum(j, d where cond) body`.
    pub(crate) fn reduction(
        &mut self,
        op: ReduceOp,
        binders: &'a [Binder],
        filter: Option<&'a Ast>,
        body: &'a Ast,
        span: Span,
    ) -> R<Val> {
        if self.frame.arguments.is_some() {
            return self
                .fail(Diagnostic::error("E0208", "a function has numbers and no tensors to reduce").primary(span, ""));
        }
        let depth = self.frame.scope.len();
        let out = self.reduction_inside(op, binders, filter, body, span);
        self.frame.scope.truncate(depth);
        out
    }

    fn reduction_inside(
        &mut self,
        op: ReduceOp,
        binders: &'a [Binder],
        filter: Option<&'a Ast>,
        body: &'a Ast,
        span: Span,
    ) -> R<Val> {
        let depth = self.frame.scope.len();
        let mut scanned: Vec<&'a Ast> = vec![body];
        scanned.extend(filter);
        let mut bound = Vec::new();
        for binder in binders {
            if binders.iter().filter(|b| b.name.text == binder.name.text).count() > 1 {
                let d = Diagnostic::error("E0218", format!("`{}` is bound twice", binder.name.text));
                return self.fail(d.primary(binder.name.span, ""));
            }
            let entry = self.bind(binder, &scanned)?;
            bound.push(entry);
            // Windows may be around the binders before them.
            if let Some(entry) = bound.last() {
                self.frame.scope.push(entry.clone());
            }
        }
        let filter = match filter {
            Some(filter) => self.pred(filter)?,
            None => Pred::True,
        };
        let guard = Pred::and(bound.iter().map(|b| b.guard.clone()).chain([filter.clone()]));
        for entry in &mut self.frame.scope[depth..] {
            entry.guard = guard.clone();
        }
        let vars: Vec<VarId> = bound.iter().flat_map(|b| b.vars.clone()).collect();
        let name = self.name_of(match op {
            ReduceOp::Logsumexp => "logsumexp",
            ReduceOp::Argmax => "argmax",
            ReduceOp::Argmin => "argmin",
            _ => "mean",
        });
        let out = match op {
            ReduceOp::Any | ReduceOp::All => {
                let body = self.pred(body)?;
                let monoid = if op == ReduceOp::Any { Monoid::Any } else { Monoid::All };
                return Ok(Val::Pred(Pred::Value(Expr::reduce(monoid, vars, guard, truth(body)))));
            }
            ReduceOp::Argmax | ReduceOp::Argmin => {
                let [only] = bound.as_slice() else {
                    let d = Diagnostic::error("E0218", "`argmax` and `argmin` are over one index");
                    return self.fail(d.primary(span, format!("found {}", bound.len())));
                };
                let Some(axis) = only.value.axis.clone().filter(|_| only.value.window.is_none()) else {
                    let d = Diagnostic::error("E0218", "`argmax` and `argmin` are over an axis and not over a window");
                    return self.fail(d.primary(span, ""));
                };
                let body = self.scalar(body)?;
                let monoid = if op == ReduceOp::Argmax { Monoid::ArgMax } else { Monoid::ArgMin };
                let label = self.hoist(Expr::reduce(monoid, vars, guard, body), &name, span);
                let comps = vec![Comp { index: Index::atom(Atom::Data(Box::new(label))), size: axis.size() }];
                return Ok(Val::Index(IndexVal { axis: Some(axis), comps, window: None, component: false }));
            }
            ReduceOp::Sum => Expr::sum(vars, guard, self.scalar(body)?),
            ReduceOp::Prod => Expr::reduce(Monoid::Prod, vars, guard, self.scalar(body)?),
            ReduceOp::Max => Expr::reduce(Monoid::Max, vars, guard, self.scalar(body)?),
            ReduceOp::Min => Expr::reduce(Monoid::Min, vars, guard, self.scalar(body)?),
            ReduceOp::Mean => {
                let body = self.scalar(body)?;
                let sizes = self.sizes();
                let count = vars.iter().map(|v| crate::ir::index::Sizes::size_of(&sizes, *v) as f64).product();
                let total = Expr::sum(vars.clone(), guard.clone(), body);
                if guard == Pred::True {
                    Expr::div(total, Expr::constant(Elem::F32, count))
                } else {
                    let fresh = self.copies(&vars);
                    let guard = self.renamed_pred(&guard, &vars, &fresh);
                    let count = Expr::sum(fresh, guard, Expr::constant(Elem::F32, 1.0));
                    // An empty mean is 0.
                    Expr::div(total, Expr::binary(BinaryOp::Max, count, Expr::constant(Elem::F32, 1.0)))
                }
            }
            ReduceOp::Logsumexp => {
                let body = self.scalar(body)?;
                let e = self.hoist(body, &format!("{name}.e"), span);
                let max = self.over_copies(Monoid::Max, &vars, &guard, &e);
                let max = self.hoist(max, &format!("{name}.max"), span);
                let shifted = Expr::unary(UnaryOp::Exp, Expr::sub(e, Expr::stop(max.clone())));
                let shifted = unless_empty(shifted, &max, &guard);
                let total = self.over_copies(Monoid::Sum, &vars, &guard, &shifted);
                let total = self.hoist(total, &format!("{name}.total"), span);
                let value = Expr::add(Expr::stop(max.clone()), Expr::unary(UnaryOp::Log, total));
                match guard {
                    Pred::True => value,
                    _ => Expr::select(is_empty(&max), max, value),
                }
            }
        };
        Ok(Val::Num(out))
    }

    /// `softmax(j)(e)` and `log_softmax(j)(e)`, at an index that is bound outside.
    pub(crate) fn normalised(&mut self, op: NormaliseOp, over: &[Name], body: &'a Ast, span: Span) -> R<Val> {
        let mut entries: Vec<Bound> = Vec::new();
        for name in over {
            match self.frame.bound(&name.text) {
                Some(entry) => entries.push(entry.clone()),
                None => {
                    let d = Diagnostic::error("E0218", format!("`{}` is not bound here", name.text))
                        .primary(name.span, "")
                        .help("a normaliser stands inside a reduction over its index, or in a definition at it");
                    let names: Vec<String> = self.frame.scope.iter().map(|b| b.name.clone()).collect();
                    let d = suggest(d, &name.text, names.iter().map(String::as_str));
                    return self.fail(d);
                }
            }
        }
        let vars: Vec<VarId> = entries.iter().flat_map(|b| b.vars.clone()).collect();
        let guard = Pred::and(entries.iter().map(|b| b.guard.clone()));
        let defined = entries.iter().any(|b| b.defined);
        let name = self.name_of("softmax");
        let body = self.scalar(body)?;
        let e = self.hoist(body, &format!("{name}.e"), span);
        let max = self.over_copies(Monoid::Max, &vars, &guard, &e);
        let max = self.hoist(max, &format!("{name}.max"), span);
        let shifted = Expr::sub(e, Expr::stop(max.clone()));
        let exp = unless_empty(Expr::unary(UnaryOp::Exp, shifted.clone()), &max, &guard);
        // On the left of a definition every position is asked for, also those that take no part.
        let exp = if defined && guard != Pred::True {
            Expr::select(guard.clone(), exp, Expr::constant(Elem::F32, 0.0))
        } else {
            exp
        };
        let exp = self.hoist(exp, &format!("{name}.exp"), span);
        let total = self.over_copies(Monoid::Sum, &vars, &guard, &exp);
        let total = self.hoist(total, &format!("{name}.total"), span);
        let zero = Expr::constant(Elem::F32, 0.0);
        let empty = Pred::Value(Expr::binary(BinaryOp::Eq, total.clone(), zero.clone()));
        let value = match op {
            NormaliseOp::Softmax => Expr::div(exp, total),
            NormaliseOp::LogSoftmax => Expr::sub(shifted, Expr::unary(UnaryOp::Log, total)),
        };
        Ok(Val::Num(if guard == Pred::True { value } else { Expr::select(empty, zero, value) }))
    }

    /// The reduction of `body` over copies of the variables.
    fn over_copies(&mut self, op: Monoid, vars: &[VarId], guard: &Pred, body: &Expr) -> Expr {
        let fresh = self.copies(vars);
        let body = self.renamed(body, vars, &fresh);
        let guard = self.renamed_pred(guard, vars, &fresh);
        Expr::reduce(op, fresh, guard, body)
    }

    /// A name for an intermediate value of the current definition.
    pub(crate) fn name_of(&self, part: &str) -> String {
        format!("{}.{part}", self.frame.defining)
    }
}

/// Whether a maximum is over nothing.
fn is_empty(max: &Expr) -> Pred {
    Pred::Value(Expr::binary(BinaryOp::Eq, max.clone(), Expr::constant(Elem::F32, f64::NEG_INFINITY)))
}

/// 0 in rows with nothing in them; a domain without a guard has none of those.
fn unless_empty(value: Expr, max: &Expr, guard: &Pred) -> Expr {
    if *guard == Pred::True { value } else { Expr::select(is_empty(max), Expr::constant(Elem::F32, 0.0), value) }
}

/// A predicate as a boolean value.
pub(crate) fn truth(p: Pred) -> Expr {
    match p {
        Pred::Value(e) => e,
        Pred::True => Expr::constant(Elem::Bool, 1.0),
        other => Expr::new(Elem::Bool, crate::ir::Node::Test(other)),
    }
}
