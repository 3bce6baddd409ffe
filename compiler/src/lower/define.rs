//! Definitions: indexed ones, with clauses over sum axes, tuples of them, and whole tensors.

use std::rc::Rc;

use foveate_dsl::Diagnostic;
use foveate_dsl::ast::{Binder, Expr as Ast, ExprKind, Span, Stmt, Target, TargetIndex};

use super::builder::View;
use super::expr::Val;
use super::forward::Bound;
use super::index::{At, IndexVal, piece_offset};
use super::reduce::truth;
use crate::check::axes::{Axis, Kind, shape};
use crate::check::elaborator::{Elaborator, MAX_DEFINED};
use crate::check::report::{R, Reported};
use crate::check::value::Static;
use crate::ir::{Atom, Clause, Elem, Expr, Index, TensorId, VarId};

/// A left side whose indices are bound.
struct Left {
    /// One a position.
    dims: Vec<Axis>,
    /// One a position and storing dimension.
    at: Vec<Vec<Index>>,
    vars: Vec<VarId>,
    /// The author's own batch index.
    batch: Option<VarId>,
}

/// What a clause defines at each of its points.
struct Piece {
    left: Left,
    body: Expr,
    label: Option<Axis>,
    batch: VarId,
}

impl<'a> Elaborator<'a> {
    /// Consecutive definitions of one name with indices: clauses of one tensor, or one after another.
    pub(crate) fn definitions(&mut self, group: &'a [Stmt]) -> R<()> {
        self.frame.calls.clear();
        let clauses: Vec<(&'a Target, &'a Ast)> = group
            .iter()
            .filter_map(|s| match s {
                Stmt::Define { target, value, .. } => Some((target, value)),
                _ => None,
            })
            .collect();
        let Some((first, _)) = clauses.first() else { return Ok(()) };
        let name = &first.name.text;
        let expose = group.iter().any(|s| matches!(s, Stmt::Define { expose: true, .. }));
        let out = self.indexed(&clauses);
        self.frame.set(name, out.as_ref().ok().cloned());
        let view = out?;
        if expose {
            let path = format!("{}{name}", self.frame.path);
            self.builder.exposed.retain(|(n, _)| *n != path);
            self.builder.exposed.push((path, view));
        }
        Ok(())
    }

    /// The tensor that clauses define.
    pub(crate) fn indexed(&mut self, clauses: &[(&'a Target, &'a Ast)]) -> R<View> {
        let mut pieces = Vec::new();
        let mut ok = true;
        for (target, value) in clauses {
            self.step(target.span)?;
            match self.clause(target, value) {
                Ok(piece) => pieces.push(piece),
                Err(Reported) => ok = false,
            }
        }
        let (Some((target, _)), true) = (clauses.first(), ok) else { return Err(Reported) };
        let name = target.name.text.clone();
        let sum = self.sum_position(clauses, &pieces)?;
        let (dims, first) = match &sum {
            // Equal left sides: the last one counts.
            None => {
                let last = pieces.len() - 1;
                (pieces[last].left.dims.clone(), last)
            }
            Some((position, axis)) => {
                let mut dims = pieces[0].left.dims.clone();
                for piece in &mut pieces {
                    let summand = piece.left.dims[*position].clone();
                    let offset = piece_offset(axis, &summand).unwrap_or_default();
                    let sizes: Vec<usize> = summand.part_sizes();
                    let flat = piece.left.at[*position]
                        .iter()
                        .zip(sizes)
                        .fold(Index::default(), |flat, (index, size)| flat.scale(size as i64).add(index));
                    piece.left.at[*position] = vec![flat.plus(offset)];
                }
                dims[*position] = axis.clone();
                (dims, 0)
            }
        };
        {
            // Whether it has memory is decided later.
            let batch = self.batch.clone();
            self.elements_up_to(MAX_DEFINED, dims.iter().chain([&batch]), target.span)?
        };
        let used = &pieces[first..];
        let elem = used[0].body.elem;
        if let Some(other) = used.iter().find(|p| p.body.elem != elem) {
            let d = Diagnostic::error("E0207", format!("the clauses of `{name}` are of different kinds"))
                .primary(target.span, format!("one is {}, another {}", kind_of(elem), kind_of(other.body.elem)));
            return self.fail(d);
        }
        let batched = used.iter().any(|p| p.left.batch.is_some() || p.body.uses(p.batch));
        let mut ids = self.dims(&dims);
        if batched {
            let batch = self.batch.clone();
            ids.insert(0, self.dim(&batch));
        }
        let tensor = self.builder.function.new_tensor(name, elem, ids, Some(target.span));
        let label = used[0].label.clone();
        let mut out = Vec::new();
        for piece in pieces.drain(first..) {
            let mut vars = piece.left.vars;
            let mut at: Vec<Index> = piece.left.at.into_iter().flatten().collect();
            if batched {
                vars.insert(0, piece.batch);
                at.insert(0, Index::from(piece.batch));
            }
            out.push(Clause { vars, at, body: piece.body });
        }
        self.define(tensor, out);
        let dims = Rc::from(dims);
        Ok(View { tensor, elem, batched, store: Rc::clone(&dims), dims, label })
    }

    /// Binds a left side and evaluates its value.
    fn clause(&mut self, target: &'a Target, value: &'a Ast) -> R<Piece> {
        let depth = self.frame.scope.len();
        let outer = (self.frame.batch, self.frame.rest_index.take(), self.frame.whole.take());
        self.frame.defining.clone_from(&target.name.text);
        let out = self.clause_inside(target, value);
        self.frame.scope.truncate(depth);
        (self.frame.batch, self.frame.rest_index, self.frame.whole) = outer;
        out
    }

    fn clause_inside(&mut self, target: &'a Target, value: &'a Ast) -> R<Piece> {
        let batch = self.batch_var();
        self.frame.batch = Some(batch);
        let indices = target.indices.as_deref().unwrap_or_default();
        let left = self.left(indices, value, target.span)?;
        let batch = left.batch.unwrap_or(batch);
        self.frame.batch = Some(batch);
        let value_span = value.span;
        let value = self.value(value)?;
        let (body, label) = self.element_of(value, value_span)?;
        Ok(Piece { left, body, label, batch })
    }

    /// A new variable of the batch; none for an optimizer is ever used.
    fn batch_var(&mut self) -> VarId {
        let batch = self.batch.clone();
        let dim = self.dim(&batch);
        self.builder.function.new_var("b", dim)
    }

    /// The element that a value is stored as, and the axis of a label.
    pub(crate) fn element_of(&mut self, value: Val, span: Span) -> R<(Expr, Option<Axis>)> {
        match value {
            Val::Pred(p) => Ok((truth(p), None)),
            Val::Static(Static::Bool(b)) => Ok((Expr::constant(Elem::Bool, f64::from(u8::from(b))), None)),
            Val::Index(IndexVal { axis: Some(axis), comps, window: None, .. })
                if comps.len() == 1
                    && matches!(comps[0].index.terms.as_slice(), [(Atom::Data(_), 1)])
                    && comps[0].index.offset == 0 =>
            {
                // A label stays one.
                match &comps[0].index.terms[0].0 {
                    Atom::Data(e) => Ok(((**e).clone(), Some(axis))),
                    _ => Err(Reported),
                }
            }
            other => Ok((self.number_of(other, span)?, None)),
        }
    }

    fn left(&mut self, indices: &'a [TargetIndex], value: &'a Ast, span: Span) -> R<Left> {
        let mut left = Left { dims: Vec::new(), at: Vec::new(), vars: Vec::new(), batch: None };
        for (n, index) in indices.iter().enumerate() {
            match index {
                TargetIndex::Rest(span) => {
                    let Some(rest) = self.frame.rest.clone().filter(|_| n == 0) else {
                        let d = Diagnostic::error("E0213", "`..` has nothing to stand for").primary(*span, "");
                        return self.fail(d.help("it stands first, in a `forward` whose input is declared with `..`"));
                    };
                    let mut values = Vec::new();
                    for (k, axis) in rest.iter().enumerate() {
                        let (value, mut vars) = self.new_index(&format!("r{k}"), axis);
                        left.at.push(value.comps.iter().map(|c| c.index.clone()).collect());
                        left.dims.push(axis.clone());
                        left.vars.append(&mut vars);
                        values.push(value);
                    }
                    self.frame.rest_index = Some(values);
                }
                TargetIndex::Binder(binder) => {
                    if let Some(axis) = self.summand_named(binder) {
                        left.dims.push(axis);
                        left.at.push(vec![Index::default()]);
                        continue;
                    }
                    let (mut axis, bound) = self.left_binder(binder, value)?;
                    if axis.is_batch() {
                        if n > 0 || left.batch.is_some() {
                            let d = Diagnostic::error("E0214", "the batch is the first index")
                                .primary(binder.name.span, "");
                            return self.fail(d);
                        }
                        left.batch = bound.vars.first().copied();
                        self.frame.batch = left.batch;
                        continue;
                    }
                    let at: Vec<Index> = match &bound.value.window {
                        Some(used) => used.offsets.iter().map(|v| Index::from(*v)).collect(),
                        None => bound.value.comps.iter().map(|c| c.index.clone()).collect(),
                    };
                    if let (Some(used), Kind::Window(ty)) = (&bound.value.window, axis.kind()) {
                        let base = left.at.iter().position(|at| *at == used.centre);
                        let mut ty = (**ty).clone();
                        ty.base = base;
                        axis = Axis::window(Rc::new(ty));
                    }
                    left.dims.push(axis);
                    left.at.push(at);
                    left.vars.extend(bound.vars.iter().copied());
                }
                TargetIndex::Merged(parts, span) => {
                    let (mut axes, mut at) = (Vec::new(), Vec::new());
                    for part in parts {
                        let TargetIndex::Binder(binder) = part else {
                            let d =
                                Diagnostic::error("E0213", "a merged index is made of index names").primary(*span, "");
                            return self.fail(d);
                        };
                        let (axis, bound) = self.left_binder(binder, value)?;
                        if bound.value.window.is_some() || axis.is_batch() {
                            let d =
                                Diagnostic::error("E0202", "windows and the batch are not merged with other indices");
                            return self.fail(d.primary(binder.name.span, ""));
                        }
                        at.extend(bound.value.comps.iter().map(|c| c.index.clone()));
                        left.vars.extend(bound.vars.iter().copied());
                        axes.push(axis);
                    }
                    let merged = self.merge(axes, *span)?;
                    left.dims.push(merged);
                    left.at.push(at);
                }
            }
        }
        let mut names: Vec<&str> = self.frame.scope.iter().filter(|b| b.defined).map(|b| b.name.as_str()).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|p| p[0] == p[1]) {
            let d = Diagnostic::error("E0218", format!("`{}` stands twice on the left", pair[0]));
            return self.fail(d.primary(span, "each index of a definition has a name of its own"));
        }
        Ok(left)
    }

    fn left_binder(&mut self, binder: &'a Binder, value: &'a Ast) -> R<(Axis, Bound)> {
        let mut bound = self.bind(binder, &[value])?;
        bound.defined = true;
        let axis = match (&bound.value.window, &bound.value.axis) {
            (Some(used), _) => Axis::window(used.ty.clone()),
            (None, Some(axis)) => axis.clone(),
            (None, None) => return Err(Reported),
        };
        self.frame.scope.push(bound.clone());
        Ok((axis, bound))
    }

    /// The summand of one element that an index on the left names.
    fn summand_named(&self, binder: &Binder) -> Option<Axis> {
        if binder.axis.is_some() || binder.domain.is_some() {
            return None;
        }
        let Some(Static::Int(1, Some(axis))) = self.frame.env.get(&binder.name.text) else { return None };
        let instance = self.frame.instance.as_ref()?;
        let declared = instance.indices.iter().any(|(n, _)| *n == binder.name.text);
        let summand = instance.sum_axes().any(|sum| piece_offset(sum, axis).is_some());
        (!declared && summand).then(|| axis.clone())
    }

    /// Over which sum axis, at which position, the clauses go.
    fn sum_position(&mut self, clauses: &[(&'a Target, &'a Ast)], pieces: &[Piece]) -> R<Option<(usize, Axis)>> {
        let span = clauses[0].0.span;
        let name = &clauses[0].0.name.text;
        let rank = pieces[0].left.dims.len();
        if let Some(n) = pieces.iter().position(|p| p.left.dims.len() != rank) {
            let d = Diagnostic::error("E0204", format!("the clauses of `{name}` have different numbers of indices"))
                .primary(clauses[n].0.span, format!("{} here", pieces[n].left.dims.len()))
                .secondary(span, format!("{rank} here"));
            return self.fail(d);
        }
        let mut position = None;
        for k in 0..rank {
            let first = &pieces[0].left.dims[k];
            let differs = pieces[1..].iter().any(|p| !p.left.dims[k].matches(first));
            let named = pieces.iter().any(|p| p.left.at[k].len() == 1 && p.left.at[k][0].as_const() == Some(0));
            if differs || named {
                if position.is_some() {
                    let d = Diagnostic::error("E0211", format!("the clauses of `{name}` differ at several positions"));
                    return self.fail(d.primary(span, "a definition goes by cases over one sum axis"));
                }
                position = Some(k);
            }
        }
        let Some(position) = position else { return Ok(None) };
        let summands: Vec<Axis> = pieces.iter().map(|p| p.left.dims[position].clone()).collect();
        let sums: Vec<Axis> =
            self.frame.instance.iter().flat_map(|i| i.sum_axes().cloned().collect::<Vec<_>>()).collect();
        let holds = |sum: &Axis| summands.iter().all(|s| piece_offset(sum, s).is_some());
        let whole = |sum: &&Axis| {
            let mut offsets: Vec<Option<i64>> = summands.iter().map(|s| piece_offset(sum, s)).collect();
            offsets.sort_unstable();
            offsets.dedup();
            holds(sum)
                && offsets.len() == summands.len()
                && matches!(sum.kind(), Kind::Sum(parts) if parts.len() == summands.len())
        };
        if let Some(sum) = sums.iter().rev().find(whole) {
            return Ok(Some((position, sum.clone())));
        }
        match sums.iter().rev().find(|s| holds(s)) {
            Some(sum) => {
                let missing: Vec<&str> = match sum.kind() {
                    Kind::Sum(parts) => {
                        parts.iter().filter(|p| !summands.iter().any(|s| s.matches(p))).map(Axis::name).collect()
                    }
                    _ => Vec::new(),
                };
                let d = if missing.is_empty() {
                    Diagnostic::error(
                        "E0210",
                        format!("two clauses of `{name}` define the same summand of {}", sum.name()),
                    )
                } else {
                    Diagnostic::error("E0209", format!("`{name}` has no clause for {}", missing.join(", ")))
                };
                self.fail(d.primary(span, format!("it goes by cases over {sum}")))
            }
            None => {
                let d = Diagnostic::error("E0210", format!("no sum axis has the summands of the clauses of `{name}`"))
                    .primary(span, format!("they are {}", shape(&summands)));
                self.fail(d.help("declare it: `axis Tokens = Cls | Grid`"))
            }
        }
    }

    /// `(q[i, h, d], k[i, h, d]) = qk(x)[i, (2, h, d)]`, or the results of a call.
    pub(crate) fn tuple_definition(&mut self, targets: &'a [Target], value: &'a Ast, span: Span) -> R<()> {
        if targets.iter().all(|t| t.indices.is_none()) {
            let views = self.tensors(value, format_args!("{}", targets[0].name.text))?;
            if views.len() != targets.len() {
                let d = Diagnostic::error("E0410", format!("{} names for {} results", targets.len(), views.len()));
                return self.fail(d.primary(span, ""));
            }
            for (target, view) in targets.iter().zip(views) {
                self.frame.set(&target.name.text, Some(view));
            }
            return Ok(());
        }
        let ExprKind::Read { base, indices } = &value.kind else {
            let d = Diagnostic::error("E0221", "a tuple on the left takes a tensor apart").primary(value.span, "");
            return self.fail(d.help(format!("write `tensor[i, ({}, h, d)]` on the right", targets.len())));
        };
        let view = self.tensor(base)?;
        let name = self.text(base.span);
        let mut names: Option<Vec<String>> = None;
        for (n, target) in targets.iter().enumerate() {
            let depth = self.frame.scope.len();
            let outer = self.frame.batch;
            self.frame.defining.clone_from(&target.name.text);
            let out = self.split_one(targets, n, value, &view, &name, indices, &mut names);
            self.frame.scope.truncate(depth);
            self.frame.batch = outer;
            let view = out?;
            self.frame.set(&target.name.text, Some(view));
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
    fn split_one(
        &mut self,
        targets: &'a [Target],
        n: usize,
        value: &'a Ast,
        view: &View,
        name: &str,
        indices: &'a [Ast],
        names: &mut Option<Vec<String>>,
    ) -> R<View> {
        let target = &targets[n];
        let batch = self.batch_var();
        self.frame.batch = Some(batch);
        let depth = self.frame.scope.len();
        let left = self.left(target.indices.as_deref().unwrap_or_default(), value, target.span)?;
        // The targets' indices correspond by position; the right side uses the names of the first.
        match names {
            None => *names = Some(self.frame.scope[depth..].iter().map(|b| b.name.clone()).collect()),
            Some(names) => {
                if self.frame.scope.len() - depth != names.len() {
                    let d = Diagnostic::error("E0221", "the targets have different numbers of indices")
                        .primary(target.span, "");
                    return self.fail(d);
                }
                for (entry, name) in self.frame.scope[depth..].iter_mut().zip(names.iter()) {
                    entry.name.clone_from(name);
                }
            }
        }
        let mut found = 0;
        let mut at = Vec::new();
        for (e, dim) in indices.iter().zip(0..) {
            match &e.kind {
                ExprKind::Tuple(parts) => match counting(parts, targets.len()) {
                    Some((before, count, span, rest)) => {
                        found += 1;
                        if *count != targets.len() as i64 {
                            let d = Diagnostic::error("E0221", format!("{} targets for {count} parts", targets.len()));
                            return self.fail(d.primary(*span, "this counts the targets"));
                        }
                        let part = Axis::weak(&count.to_string(), targets.len());
                        let position = IndexVal {
                            axis: Some(part),
                            comps: vec![super::index::Comp { index: Index::from(n as i64), size: targets.len() }],
                            window: None,
                            component: false,
                        };
                        let mut all = self.positions(before)?;
                        all.push(At::Index(position, *span));
                        all.extend(self.positions(rest)?);
                        at.push(At::Tuple(all, e.span));
                    }
                    _ => at.extend(self.positions(std::slice::from_ref(e))?),
                },
                ExprKind::Int(count)
                    if *count == targets.len() as i64
                        && view.dims.get(dim).is_some_and(|d| d.size() == targets.len()) =>
                {
                    found += 1;
                    at.push(At::Const(n as i64, None, e.span));
                }
                _ => at.extend(self.positions(std::slice::from_ref(e))?),
            }
        }
        if found != 1 {
            let d = Diagnostic::error("E0221", "one index on the right counts the targets")
                .primary(value.span, format!("found {found}"));
            return self.fail(d.help(format!("write `tensor[i, ({}, h, d)]`", targets.len())));
        }
        let read = self.read(view, name, at, value.span)?;
        let (body, label) = self.element_of(read, value.span)?;
        let (dims, mut vars) = (left.dims, left.vars);
        let mut positions: Vec<Index> = left.at.into_iter().flatten().collect();
        let mut ids = self.dims(&dims);
        let batched = body.uses(batch);
        if batched {
            let axis = self.batch.clone();
            ids.insert(0, self.dim(&axis));
            vars.insert(0, batch);
            positions.insert(0, Index::from(batch));
        }
        let elem = body.elem;
        let tensor: TensorId = self.builder.function.new_tensor(target.name.text.clone(), elem, ids, Some(target.span));
        self.define(tensor, vec![Clause { vars, at: positions, body }]);
        let dims = Rc::from(dims);
        Ok(View { tensor, elem, batched, store: Rc::clone(&dims), dims, label })
    }
}

/// The literal of a tuple that counts the targets, with what is before and behind it: the first part, or the only one that is their number.
fn counting(parts: &[Ast], targets: usize) -> Option<(&[Ast], &i64, &Span, &[Ast])> {
    let literal = |p: &Ast| matches!(&p.kind, ExprKind::Int(_));
    let number = |p: &&Ast| matches!(&p.kind, ExprKind::Int(n) if *n == targets as i64);
    let at = if parts.first().is_some_and(literal) {
        0
    } else {
        parts.iter().position(|p| number(&p)).filter(|_| parts.iter().filter(number).count() == 1)?
    };
    let Ast { kind: ExprKind::Int(count), span } = &parts[at] else { return None };
    Some((&parts[..at], count, span, &parts[at + 1..]))
}

fn kind_of(elem: Elem) -> &'static str {
    match elem {
        Elem::Bool => "a truth value",
        Elem::I32 => "a label",
        _ => "a number",
    }
}
