//! Index names: what they range over, and windows.

use std::rc::Rc;

use foveate_dsl::Diagnostic;
use foveate_dsl::ast::{Arg, AxisRef, Binder, Expr as Ast, ExprKind, Span};

use super::forward::Bound;
use super::index::{Comp, IndexVal, WindowUse};
use crate::check::axes::{Axis, Border, Kind, WindowType};
use crate::check::elaborator::Elaborator;
use crate::check::report::R;
use crate::check::statics::bare_name;
use crate::check::value::Static;
use crate::ir::{Index, Pred, VarId};

impl<'a> Elaborator<'a> {
    /// Binds an index name; `scanned` is where its use may tell its axis.
    pub(crate) fn bind(&mut self, binder: &'a Binder, scanned: &[&'a Ast]) -> R<Bound> {
        let name = &binder.name.text;
        if let Some(domain) = &binder.domain {
            return self.bind_window(binder, domain, scanned);
        }
        let axis = self.axis_of(binder, scanned)?;
        let (value, vars) = self.new_index(name, &axis);
        Ok(Bound { name: name.clone(), value, vars, guard: Pred::True, defined: false })
    }

    /// The axis a binder ranges over: as written, as declared, as used, or by its name.
    fn axis_of(&mut self, binder: &'a Binder, scanned: &[&'a Ast]) -> R<Axis> {
        match self.axis_if_known(binder, scanned)? {
            Some(axis) => Ok(axis),
            None => {
                let name = &binder.name.text;
                let d = Diagnostic::error("E0219", format!("what `{name}` ranges over is not known"))
                    .primary(
                        binder.name.span,
                        "it is not declared, indexes nothing whose shape is known, and no axis has its name",
                    )
                    .help(format!("write `{name}: AXIS`, or declare `index {name}: AXIS`"));
                self.fail(d)
            }
        }
    }

    fn axis_if_known(&mut self, binder: &'a Binder, scanned: &[&'a Ast]) -> R<Option<Axis>> {
        let name = &binder.name.text;
        if let Some(r) = &binder.axis {
            if let AxisRef::Expr(e) = r
                && bare_name(e) == Some("Batch")
            {
                return Ok(Some(self.batch.clone()));
            }
            let env = self.frame.env.clone();
            return self.axis(&env, r).map(Some);
        }
        let plain = name.trim_end_matches(|c: char| c.is_ascii_digit());
        if let Some(instance) = &self.frame.instance {
            for wanted in [name.as_str(), plain] {
                if let Some((_, axis)) = instance.indices.iter().rev().find(|(n, _)| n == wanted) {
                    return Ok(Some(axis.clone()));
                }
            }
        }
        for e in scanned {
            if let Some(axis) = self.use_of(name, e)? {
                return Ok(Some(axis));
            }
        }
        for wanted in [name.to_uppercase(), plain.to_uppercase()] {
            if let Some(Static::Int(_, Some(axis))) = self.frame.env.get(&wanted) {
                return Ok(Some(axis.clone()));
            }
        }
        Ok(None)
    }

    /// The axis at which a name is used as an index.
    fn use_of(&mut self, name: &str, e: &'a Ast) -> R<Option<Axis>> {
        let parts: Vec<&'a Ast> = match &e.kind {
            ExprKind::Read { base, indices } => {
                if mentions(indices, name)
                    && let Some(dims) = self.dims_of(base)?
                    && let Some(axis) = match_use(name, indices, &dims, self.frame.rest.as_ref().map_or(0, Vec::len))
                {
                    return Ok(Some(axis));
                }
                indices.iter().collect()
            }
            ExprKind::Unary { operand, .. } => vec![operand],
            ExprKind::Binary { left, right, .. } => vec![left, right],
            ExprKind::If { cond, then, otherwise } => vec![cond, then, otherwise],
            ExprKind::Call { args, .. } => args.iter().map(|a| &a.value).collect(),
            ExprKind::Reduce { binders, filter, body, .. } => {
                if binders.iter().any(|b| b.name.text == name) {
                    return Ok(None);
                }
                std::iter::once(&**body).chain(filter.as_deref()).collect()
            }
            ExprKind::Normalise { body, .. } => vec![body],
            ExprKind::Tuple(parts) => parts.iter().collect(),
            _ => Vec::new(),
        };
        for part in parts {
            if let Some(axis) = self.use_of(name, part)? {
                return Ok(Some(axis));
            }
        }
        Ok(None)
    }

    /// The axes of a tensor that is read, where it is one.
    fn dims_of(&mut self, base: &'a Ast) -> R<Option<Rc<[Axis]>>> {
        match &base.kind {
            ExprKind::Path(path) => {
                let env = self.frame.env.clone();
                let name = self.path_text(&env, path)?;
                match self.find_view(&name) {
                    Some(view) => Ok(Some(view?.dims)),
                    None => Ok(None),
                }
            }
            ExprKind::Call { .. } => Ok(Some(self.tensor(base)?.dims)),
            _ => Ok(None),
        }
    }

    fn bind_window(&mut self, binder: &'a Binder, domain: &'a Ast, scanned: &[&'a Ast]) -> R<Bound> {
        let name = &binder.name.text;
        let args = match &domain.kind {
            ExprKind::Call { callee, args } if callee.as_name() == Some("window") => args,
            _ => {
                let text = self.text(domain.span);
                let d = Diagnostic::error("E0220", format!("`{text}` is not a domain")).primary(domain.span, "");
                return self
                    .fail(d.help("a domain is `window(i, height, width, pad: zero)`; predicates stand after `where`"));
            }
        };
        let env = self.frame.env.clone();
        let Some((first, rest)) = args.split_first() else {
            return self.fail(
                Diagnostic::error("E0220", "a window has a centre").primary(domain.span, "expected `window(i, ...)`"),
            );
        };
        let centre_name = bare_name(&first.value).unwrap_or_default();
        let centre = match self.frame.bound(centre_name) {
            Some(bound) => bound.value.clone(),
            None => {
                let d = Diagnostic::error("E0220", "a window is centred on an index")
                    .primary(first.value.span, "this is not an index that is bound here");
                return self.fail(d);
            }
        };
        let Some(centre_axis) = centre.axis.clone().filter(|_| centre.window.is_none()) else {
            let d =
                Diagnostic::error("E0220", "a window is centred on an index of an axis").primary(first.value.span, "");
            return self.fail(d);
        };
        if matches!(centre_axis.kind(), Kind::Sum(_) | Kind::Batch) {
            let d = Diagnostic::error("E0220", format!("a window does not fit the axis {centre_axis}"));
            return self.fail(d.primary(first.value.span, "it is around an index of an atom or a product"));
        }
        let rank = centre.comps.len();
        let mut sides: Vec<(usize, Span)> = Vec::new();
        let (mut border, mut stride, mut dilation, mut offset) = (None, 1, 1, None);
        for arg in rest {
            match arg.name.as_ref().map(|n| n.text.as_str()) {
                None => {
                    let side = self.size(&env, &arg.value)?;
                    sides.push((side, arg.value.span));
                }
                Some("pad") => {
                    border = Some(match bare_name(&arg.value) {
                        Some("zero") => Border::Zero,
                        Some("mask") => Border::Mask,
                        Some("clamp") => Border::Clamp,
                        _ => {
                            let d = Diagnostic::error("E0220", "this is not a border").primary(arg.value.span, "");
                            return self.fail(d.help("borders are `zero`, `mask` and `clamp`"));
                        }
                    });
                }
                Some("stride") => stride = self.size(&env, &arg.value)? as i64,
                Some("dilation") => dilation = self.size(&env, &arg.value)? as i64,
                Some("offset") => offset = Some(self.offsets(arg, rank)?),
                Some(other) => {
                    let d =
                        Diagnostic::error("E0403", format!("a window has no `{other}`")).primary(arg.value.span, "");
                    return self.fail(d.help("it has `pad`, `stride`, `dilation` and `offset`"));
                }
            }
        }
        let Some(border) = border else {
            let d = Diagnostic::error("E0220", "a window says what it does at the border").primary(domain.span, "");
            return self.fail(d.help("add `pad: zero`, `pad: mask` or `pad: clamp`"));
        };
        if sides.len() != rank {
            let d = Diagnostic::error(
                "E0220",
                format!("a window around an index of {centre_axis} has {rank} sides, found {}", sides.len()),
            );
            return self.fail(d.primary(domain.span, ""));
        }
        // Positions are in the centre's axis; with a stride, in the axis that the name has.
        let axis = match self.axis_if_known(binder, scanned)? {
            Some(axis) if axis.parts().len() == rank && !matches!(axis.kind(), Kind::Window(_)) => axis,
            _ => centre_axis.clone(),
        };
        if stride == 1 && !axis.matches(&centre_axis) {
            let d = Diagnostic::error(
                "E0201",
                format!("a window of {} around an index of {}", axis.name(), centre_axis.name()),
            )
            .primary(domain.span, format!("`{name}` is of {axis}, its centre of {centre_axis}"));
            return self.fail(d);
        }
        let mut start = Vec::new();
        for (n, (side, span)) in sides.iter().enumerate() {
            start.push(match &offset {
                Some(offset) => offset[n],
                None if side % 2 == 1 => -(*side as i64 / 2) * dilation,
                None => {
                    let d = Diagnostic::error("E0310", format!("a window of side {side} has no middle"));
                    return self
                        .fail(d.primary(*span, "sides are odd").help("or say where it starts: `offset: (oy, ox)`"));
                }
            });
        }
        let parts = axis.parts();
        let sides: Vec<(Axis, i64)> = sides
            .iter()
            .map(|(side, _)| (Axis::atom("Window", None, *side, u32::MAX - 2, u32::MAX - 2), *side as i64))
            .collect();
        let (mut comps, mut vars, mut guards) = (Vec::new(), Vec::<VarId>::new(), Vec::new());
        for (n, (side, length)) in sides.iter().enumerate() {
            let text = match (rank, n) {
                (1, _) => format!("{name}.offset"),
                (2, 0) => format!("{name}.dy"),
                (2, _) => format!("{name}.dx"),
                _ => format!("{name}.d{n}"),
            };
            let dim = self.dim(side);
            let var = self.builder.function.new_var(text, dim);
            let reach = dilation.saturating_mul(length - 1).saturating_add(1);
            let size = parts[n].size() as i64;
            self.small(&Index::from(reach), 1, domain.span)?;
            self.small(&Index::from(start[n]), 1, domain.span)?;
            self.small(&centre.comps[n].index, stride, domain.span)?;
            let mut begin = centre.comps[n].index.scale(stride).plus(start[n]);
            if border == Border::Clamp {
                if reach > size {
                    let d =
                        Diagnostic::error("E0310", format!("a window of {reach} positions does not fit into {size}"));
                    return self
                        .fail(d.primary(domain.span, format!("with `pad: clamp` it is no larger than {}", parts[n])));
                }
                begin = begin.clamped(0, size - reach, &self.sizes());
            }
            let index = begin.add(&Index::from(var).scale(dilation));
            if border == Border::Mask {
                guards.push(Pred::within(&index, 0, size, &self.sizes()));
            }
            comps.push(Comp { index, size: parts[n].size() });
            vars.push(var);
        }
        let sides = sides.into_iter().map(|(axis, _)| axis).collect();
        let ty = Rc::new(WindowType { axis: axis.clone(), sides, stride, dilation, start, border, base: None });
        let centre = centre.comps.iter().map(|c| c.index.clone()).collect();
        let window = Some(WindowUse { ty, centre, offsets: vars.clone() });
        let value = IndexVal { axis: Some(axis), comps, window, component: false };
        Ok(Bound { name: name.clone(), value, vars, guard: Pred::and(guards), defined: false })
    }

    fn offsets(&mut self, arg: &Arg, rank: usize) -> R<Vec<i64>> {
        let env = self.frame.env.clone();
        let parts: Vec<i64> = match self.statics(&env, &arg.value, &[])? {
            Static::Int(n, _) => vec![n],
            Static::Tuple(parts) => {
                parts.iter().filter_map(|p| if let Static::Int(n, _) = p { Some(*n) } else { None }).collect()
            }
            _ => Vec::new(),
        };
        if parts.len() != rank {
            let d =
                Diagnostic::error("E0220", format!("`offset` has {rank} integers here")).primary(arg.value.span, "");
            return self.fail(d);
        }
        Ok(parts)
    }
}

fn mentions(indices: &[Ast], name: &str) -> bool {
    indices.iter().any(|e| match &e.kind {
        ExprKind::Tuple(parts) => mentions(parts, name),
        _ => bare_name(e) == Some(name),
    })
}

/// The axis at the position of a bare index, also within a tuple; `rest` is the number of axes that `..` stands for.
fn match_use(name: &str, indices: &[Ast], dims: &[Axis], rest: usize) -> Option<Axis> {
    let spread: usize = indices.iter().map(|e| if let ExprKind::Rest = e.kind { rest } else { 1 }).sum();
    // An extra first index is the batch.
    let mut at = if spread == dims.len() + 1 { -1 } else { 0_i64 };
    for e in indices {
        match &e.kind {
            ExprKind::Rest => at += rest as i64,
            _ => {
                let dim = usize::try_from(at).ok().and_then(|n| dims.get(n));
                match (&e.kind, dim) {
                    (ExprKind::Tuple(parts), Some(dim)) => {
                        if let Some(factors) = dim.factors().filter(|f| f.len() == parts.len())
                            && let Some(axis) = match_use(name, parts, factors, 0)
                        {
                            return Some(axis);
                        }
                    }
                    (_, Some(dim)) if bare_name(e) == Some(name) && !matches!(dim.kind(), Kind::Window(_)) => {
                        return Some(dim.clone());
                    }
                    _ => {}
                }
                at += 1;
            }
        }
    }
    None
}
