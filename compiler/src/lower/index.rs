//! Indices as values, and reads: from the axes a tensor has by its type to the dimensions that store it.

use std::rc::Rc;

use foveate_dsl::Diagnostic;
use foveate_dsl::ast::{Expr as Ast, ExprKind, Span};

use super::builder::View;
use super::expr::Val;
use crate::check::axes::{Axis, Kind, WindowType, shape};
use crate::check::elaborator::Elaborator;
use crate::check::report::R;
use crate::check::value::Static;
use crate::ir::index::Sizes;
use crate::ir::{Atom, Elem, Expr, Index, Pred, VarId};

/// An index value in one of the dimensions that store its axis.
#[derive(Clone, Debug)]
pub(crate) struct Comp {
    pub index: Index,
    /// The size of that dimension.
    pub size: usize,
}

/// An index as a value.
#[derive(Clone, Debug)]
pub(crate) struct IndexVal {
    /// The axis that it is an index of; none for the result of arithmetic.
    pub axis: Option<Axis>,
    /// One a storing dimension; of a label and of arithmetic there is one.
    pub comps: Vec<Comp>,
    /// For an index of a window.
    pub window: Option<WindowUse>,
    /// Whether it is `.row`, `.col` or another factor of an index.
    pub component: bool,
}

/// An index of a window around a centre.
#[derive(Clone, Debug)]
pub(crate) struct WindowUse {
    pub ty: Rc<WindowType>,
    pub centre: Vec<Index>,
    pub offsets: Vec<VarId>,
}

impl IndexVal {
    /// The result of index arithmetic.
    pub fn computed(index: Index) -> IndexVal {
        IndexVal { axis: None, comps: vec![Comp { index, size: 0 }], window: None, component: false }
    }
}

/// What stands at one position of a read.
pub(crate) enum At {
    Index(IndexVal, Span),
    /// A constant; if it was written as the name of an axis of one element, that axis.
    Const(i64, Option<Axis>, Span),
    Tuple(Vec<At>, Span),
}

impl At {
    fn span(&self) -> Span {
        match self {
            At::Index(_, span) | At::Const(_, _, span) | At::Tuple(_, span) => *span,
        }
    }
}

/// Index values stay below this, so that their arithmetic cannot overflow.
const MAX_INDEX: i128 = 1 << 31;

impl<'a> Elaborator<'a> {
    /// What stands at the positions of a read; `..` becomes the leading axes' indices.
    pub(crate) fn positions(&mut self, indices: &'a [Ast]) -> R<Vec<At>> {
        let mut out = Vec::new();
        for e in indices {
            if let ExprKind::Rest = e.kind {
                match &self.frame.rest_index {
                    Some(rest) => out.extend(rest.clone().into_iter().map(|iv| At::Index(iv, e.span))),
                    None => {
                        let d = Diagnostic::error("E0213", "`..` has nothing to stand for").primary(e.span, "");
                        return self.fail(d.help("it repeats the leading axes of a left side `y[.., c]`"));
                    }
                }
            } else {
                out.push(self.position(e)?);
            }
        }
        Ok(out)
    }

    fn position(&mut self, e: &'a Ast) -> R<At> {
        if let ExprKind::Tuple(parts) = &e.kind {
            return Ok(At::Tuple(parts.iter().map(|p| self.position(p)).collect::<R<_>>()?, e.span));
        }
        match self.value(e)? {
            Val::Index(iv) => Ok(At::Index(iv, e.span)),
            Val::Static(Static::Int(n, axis)) => Ok(At::Const(n, axis, e.span)),
            other => self.fail(
                Diagnostic::error("E0205", format!("an index is an integer, found {}", other.kind()))
                    .primary(e.span, "this cannot stand as an index"),
            ),
        }
    }

    /// The read of a tensor.
    pub(crate) fn read(&mut self, view: &View, name: &str, mut at: Vec<At>, span: Span) -> R<Val> {
        let mut batch = self.frame.batch;
        if at.len() == view.dims.len() + 1 {
            let explicit = match &at[0] {
                At::Index(IndexVal { axis: Some(axis), comps, .. }, _) if axis.is_batch() => comps[0].index.as_var(),
                _ => None,
            };
            if explicit.is_some() {
                batch = explicit;
                at.remove(0);
            }
        }
        if at.len() != view.dims.len() {
            let d = Diagnostic::error(
                "E0204",
                format!("`{name}` has {} axes, found {} indices", view.dims.len(), at.len()),
            )
            .primary(span, format!("its shape is {}", shape(&view.dims)));
            return self.fail(d);
        }
        let centre = |a: &At| match a {
            At::Index(iv, _) => Some(iv.comps.iter().map(|c| c.index.clone()).collect()),
            _ => None,
        };
        // Only the indices of windows are held against the others.
        let windows = view.dims.iter().any(|d| matches!(d.kind(), Kind::Window(_)));
        let centres: Vec<Option<Vec<Index>>> = if windows { at.iter().map(centre).collect() } else { Vec::new() };
        let mut guards = Vec::new();
        let mut indices = Vec::new();
        for ((n, dim), a) in view.dims.iter().enumerate().zip(at) {
            let comps = self.place(name, dim, a, &centres, &mut guards)?;
            indices.extend(self.align(comps, &view.store[n], &mut guards));
        }
        if view.batched {
            let Some(batch) = batch else {
                let d = Diagnostic::error("E0214", format!("`{name}` has a batch and this place has none"));
                return self.fail(d.primary(span, ""));
            };
            indices.insert(0, Index::from(batch));
        }
        let sizes = self.sizes();
        let dims = &self.builder.function.tensor(view.tensor).dims;
        let inside = indices.iter().zip(dims).all(|(index, dim)| {
            index.range(&sizes).is_some_and(|(lo, hi)| lo >= 0 && hi < self.axes[dim.index()].size as i64)
        });
        let read = if inside {
            Expr::read(view.elem, view.tensor, indices)
        } else {
            Expr::read_or_zero(view.elem, view.tensor, indices)
        };
        let read = match Pred::and(guards) {
            Pred::True => read,
            guard => Expr::select(guard, read, Expr::constant(view.elem, 0.0)),
        };
        Ok(match (view.elem, &view.label) {
            (Elem::Bool, _) => Val::Pred(Pred::Value(read)),
            (_, Some(axis)) => {
                let comps = vec![Comp { index: Index::atom(Atom::Data(Box::new(read))), size: axis.size() }];
                Val::Index(IndexVal { axis: Some(axis.clone()), comps, window: None, component: false })
            }
            _ => Val::Num(read),
        })
    }

    /// What a position says about one axis of a tensor's type, as indices of factors; what must hold besides goes to
    /// `guards`.
    fn place(
        &mut self,
        name: &str,
        dim: &Axis,
        at: At,
        centres: &[Option<Vec<Index>>],
        guards: &mut Vec<Pred>,
    ) -> R<Vec<Comp>> {
        match at {
            At::Const(_, Some(piece), _) if piece_offset(dim, &piece).is_some() => {
                let offset = piece_offset(dim, &piece).unwrap_or_default();
                Ok(vec![Comp { index: Index::from(offset), size: dim.size() }])
            }
            At::Const(n, _, span) => {
                if n < 0 || n >= dim.size() as i64 {
                    let d = Diagnostic::error("E0215", format!("index {n} is outside the axis {dim}"));
                    return self.fail(d.primary(span, format!("`{name}` has positions 0 to {} here", dim.size() - 1)));
                }
                Ok(vec![Comp { index: Index::from(n), size: dim.size() }])
            }
            At::Tuple(parts, span) => self.place_tuple(name, dim, parts, span, guards),
            At::Index(iv, span) => {
                if let Kind::Window(ty) = dim.kind() {
                    return self.place_window(name, dim, ty, iv, span, centres);
                }
                let Some(axis) = &iv.axis else {
                    if dim.parts().len() > 1 && matches!(dim.kind(), Kind::Product(_)) {
                        let d = Diagnostic::error("E0205", format!("one index expression for the product axis {dim}"))
                            .primary(span, "expected a tuple with an index for each factor");
                        return self.fail(d.help("write `(row, column)`"));
                    }
                    return Ok(vec![Comp { index: iv.comps[0].index.clone(), size: dim.size() }]);
                };
                if axis.matches(dim) {
                    return Ok(iv.comps);
                }
                if let Some(offset) = piece_offset(dim, axis) {
                    let flat = self.flatten(&iv.comps, guards);
                    if iv.window.is_some() {
                        // The piece must hold the whole position, or the neighbouring piece would be read.
                        guards.push(Pred::within(&flat, 0, axis.size() as i64, &self.sizes()));
                    }
                    return Ok(vec![Comp { index: flat.plus(offset), size: dim.size() }]);
                }
                let mut d =
                    Diagnostic::error("E0201", format!("index of {} where `{name}` has {}", axis.name(), dim.name()))
                        .primary(span, format!("this index is of {axis}"))
                        .note(format!("the axis of `{name}` here is {dim}"));
                if axis.size() == dim.size() {
                    d = d.note("they have the same size here, but are different axes");
                }
                self.fail(d)
            }
        }
    }

    fn place_tuple(
        &mut self,
        name: &str,
        dim: &Axis,
        parts: Vec<At>,
        span: Span,
        guards: &mut Vec<Pred>,
    ) -> R<Vec<Comp>> {
        let factors = dim.factors().filter(|f| f.len() == parts.len()).map(<[Axis]>::to_vec);
        if let (Kind::Product(_), None) = (dim.kind(), &factors) {
            let d = Diagnostic::error("E0205", format!("a tuple of {} for the product axis {dim}", parts.len()));
            return self.fail(d.primary(span, "expected an index for each factor"));
        }
        // A part that is no bare index takes the size that is left over, or that of the factor in its place.
        let known: Vec<Option<usize>> = parts
            .iter()
            .map(|p| match p {
                At::Index(IndexVal { axis: Some(axis), .. }, _) => Some(axis.size()),
                _ => None,
            })
            .collect();
        let fits = factors.as_ref().is_some_and(|f| known.iter().zip(f).all(|(k, f)| k.is_none_or(|k| k == f.size())));
        if let Some(factors) = factors.filter(|_| fits) {
            let mut out = Vec::new();
            for (factor, part) in factors.iter().zip(parts) {
                let comps = self.place(name, factor, part, &[], guards)?;
                let parts = factor.parts();
                let aligned = self.align(comps, factor, guards);
                out.extend(aligned.into_iter().zip(parts).map(|(index, p)| Comp { index, size: p.size() }));
            }
            return Ok(out);
        }
        if let Kind::Product(_) = dim.kind() {
            let d = Diagnostic::error("E0201", format!("this tuple does not fit the product axis {dim}"));
            return self.fail(d.primary(span, "the factors have other sizes"));
        }
        let product: usize = known.iter().flatten().fold(1, |a, b| a.saturating_mul(*b));
        let unknown = known.iter().filter(|k| k.is_none()).count();
        if unknown > 1 || product == 0 || !dim.size().is_multiple_of(product) || (unknown == 0 && product != dim.size())
        {
            let sizes: Vec<String> = known.iter().map(|k| k.map_or("?".to_owned(), |k| k.to_string())).collect();
            let d = Diagnostic::error(
                "E0202",
                format!("an axis of {} elements is not merged from ({})", dim.size(), sizes.join(", ")),
            )
            .primary(span, format!("the axis of `{name}` here is {dim}"));
            return self.fail(d);
        }
        let mut out = Vec::new();
        for (part, size) in parts.into_iter().zip(known) {
            let size = size.unwrap_or(dim.size() / product);
            let span = part.span();
            let axis = match &part {
                At::Index(IndexVal { axis: Some(axis), .. }, _) => axis.clone(),
                _ => Axis::weak(&self.text(span), size),
            };
            out.extend(self.place(name, &axis, part, &[], guards)?);
        }
        Ok(out)
    }

    fn place_window(
        &mut self,
        name: &str,
        dim: &Axis,
        ty: &Rc<WindowType>,
        iv: IndexVal,
        span: Span,
        centres: &[Option<Vec<Index>>],
    ) -> R<Vec<Comp>> {
        if iv.axis.as_ref().is_some_and(|axis| matches!(axis.kind(), Kind::Window(_)) && axis.matches(dim)) {
            return Ok(iv.comps);
        }
        let centre = ty.base.and_then(|base| centres.get(base)).and_then(Option::as_ref);
        match &iv.window {
            Some(used) if used.ty.same(ty) && centre.is_none_or(|c| *c == used.centre) => Ok(used
                .offsets
                .iter()
                .zip(&ty.sides)
                .map(|(v, side)| Comp { index: Index::from(*v), size: side.size() })
                .collect()),
            found => {
                let d =
                    Diagnostic::error("E0216", format!("`{name}` is defined on a window and read at another index"))
                        .primary(
                            span,
                            match found {
                                Some(_) => "this is an index of a window of another form, or around another centre",
                                None => "this is not an index of a window",
                            },
                        );
                self.fail(d.help("read it at an index of the same window around the same index"))
            }
        }
    }

    /// From the factors of an index to the dimensions of the storing axis: equal runs are taken over, others are flattened
    /// and split.
    fn align(&mut self, comps: Vec<Comp>, store: &Axis, guards: &mut Vec<Pred>) -> Vec<Index> {
        let store: Vec<usize> = store.part_sizes();
        if comps.len() == store.len() && comps.iter().zip(&store).all(|(c, s)| c.size == *s) {
            return comps.into_iter().map(|c| c.index).collect();
        }
        let mut out = Vec::new();
        let (mut i, mut j) = (0, 0);
        while i < comps.len() && j < store.len() {
            let (first, start) = (i, j);
            let (mut a, mut b) = (comps[i].size, store[j]);
            i += 1;
            j += 1;
            while a != b {
                if a < b && i < comps.len() {
                    a *= comps[i].size;
                    i += 1;
                } else if j < store.len() {
                    b *= store[j];
                    j += 1;
                } else {
                    break;
                }
            }
            let flat = self.flatten(&comps[first..i], guards);
            let sizes = self.sizes();
            let mut stride: i64 = store[start..j].iter().map(|s| *s as i64).product();
            for (n, size) in store[start..j].iter().enumerate() {
                stride /= *size as i64;
                let whole = flat.div(stride, &sizes);
                out.push(if n == 0 { whole.fold() } else { whole.modulo(*size as i64, &sizes).fold() });
            }
        }
        for comp in &comps[i..] {
            guards.push(Pred::within(&comp.index, 0, comp.size as i64, &self.sizes()));
        }
        out.resize(store.len(), Index::default());
        out
    }

    /// The row-major position. Where a later factor may leave its axis, that must not show as a neighbour: it is guarded.
    fn flatten(&self, comps: &[Comp], guards: &mut Vec<Pred>) -> Index {
        let sizes = self.sizes();
        let mut flat = Index::default();
        for (n, comp) in comps.iter().enumerate() {
            if n > 0 {
                guards.push(Pred::within(&comp.index, 0, comp.size as i64, &sizes));
            }
            flat = flat.scale(comp.size as i64).add(&comp.index);
        }
        flat.fold()
    }

    /// An index as one integer: a label or an atom as it is, a product row-major. Windows that leave their axis have none.
    pub(crate) fn flat(&mut self, iv: &IndexVal) -> Index {
        self.flatten(&iv.comps, &mut Vec::new())
    }

    /// New variables for an index of an axis.
    pub(crate) fn new_index(&mut self, name: &str, axis: &Axis) -> (IndexVal, Vec<VarId>) {
        let parts = axis.parts();
        let mut comps = Vec::new();
        let mut vars = Vec::new();
        for (n, part) in parts.iter().enumerate() {
            let dim = self.dim(part);
            let text = match (parts.len(), n) {
                (1, _) => name.to_owned(),
                (2, 0) => format!("{name}.row"),
                (2, _) => format!("{name}.col"),
                _ => format!("{name}.{n}"),
            };
            let var = self.builder.function.new_var(text, dim);
            vars.push(var);
            comps.push(Comp { index: Index::from(var), size: part.size() });
        }
        (IndexVal { axis: Some(axis.clone()), comps, window: None, component: false }, vars)
    }

    /// `i.row`, `i.col`, `i.0`.
    pub(crate) fn component(&mut self, name: &str, iv: &IndexVal, which: &str, span: Span) -> R<IndexVal> {
        let Some(axis) = &iv.axis else {
            return self.fail(Diagnostic::error("E0206", "an index expression has no factors").primary(span, ""));
        };
        if let Kind::Sum(pieces) = axis.kind() {
            let names: Vec<&str> = pieces.iter().map(Axis::name).collect();
            let d = Diagnostic::error(
                "E0206",
                format!("`{name}` may be in any summand of {}, so it has no `.{which}`", axis.name()),
            )
            .primary(span, format!("`{name}` is an index of {axis}"))
            .help(format!("use an index of one summand ({})", names.join(", ")));
            return self.fail(d);
        }
        let factors = axis.factors().unwrap_or_default();
        let at = match (which, factors.len()) {
            ("row", 2) => Some(0),
            ("col", 2) => Some(1),
            _ => which.parse::<usize>().ok().filter(|n| *n < factors.len()),
        };
        let Some(at) = at else {
            let d = Diagnostic::error("E0206", format!("`{name}` has no `.{which}`"))
                .primary(span, format!("`{name}` is an index of {axis}"));
            return self.fail(match factors.len() {
                0 => d.help("only indices of product axes have factors"),
                2 => d.help("its factors are `.row` and `.col`"),
                n => d.help(format!("its factors are `.0` to `.{}`", n - 1)),
            });
        };
        let parts: Vec<usize> = factors.iter().map(|f| f.part_sizes().len()).collect();
        let (comps, sizes): (Vec<Index>, Vec<usize>) = if iv.comps.len() == parts.iter().sum::<usize>() {
            iv.comps.iter().map(|c| (c.index.clone(), c.size)).unzip()
        } else {
            let sizes: Vec<usize> = axis.part_sizes();
            (self.align(iv.comps.clone(), axis, &mut Vec::new()), sizes)
        };
        let start: usize = parts[..at].iter().sum();
        let range = start..start + parts[at];
        let comps = comps[range.clone()]
            .iter()
            .zip(&sizes[range])
            .map(|(index, size)| Comp { index: index.clone(), size: *size })
            .collect();
        Ok(IndexVal { axis: Some(factors[at].clone()), comps, window: None, component: true })
    }

    /// Checks that an index stays small enough for its arithmetic, after a multiplication by `by`.
    pub(crate) fn small(&mut self, index: &Index, by: i64, span: Span) -> R<()> {
        let magnitude = magnitude(index, &self.sizes()).saturating_mul(i128::from(by.unsigned_abs()));
        if magnitude > MAX_INDEX {
            let d = Diagnostic::error("E0307", "this index can become too large")
                .primary(span, format!("the most is {MAX_INDEX}"));
            return self.fail(d);
        }
        Ok(())
    }
}

/// Where a summand of a sum axis begins.
pub(crate) fn piece_offset(dim: &Axis, piece: &Axis) -> Option<i64> {
    let Kind::Sum(pieces) = dim.kind() else { return None };
    let at = pieces
        .iter()
        .position(|p| !p.is_weak() && !piece.is_weak() && p.matches(piece))
        .or_else(|| pieces.iter().position(|p| p.matches(piece)))?;
    Some(pieces[..at].iter().map(|p| p.size() as i64).sum())
}

fn magnitude(index: &Index, sizes: &dyn Sizes) -> i128 {
    let mut total = i128::from(index.offset.unsigned_abs());
    for (atom, c) in &index.terms {
        let bound = match atom {
            Atom::Var(v) => i128::from(sizes.size_of(*v)),
            Atom::Div(e, k) => magnitude(e, sizes) / i128::from(*k) + 1,
            Atom::Mod(_, k) => i128::from(*k),
            Atom::Clamp(_, lo, hi) => i128::from(lo.unsigned_abs().max(hi.unsigned_abs())),
            Atom::Data(_) => 1 << 20,
        };
        total = total.saturating_add(bound.saturating_mul(i128::from(c.unsigned_abs())));
    }
    total
}
