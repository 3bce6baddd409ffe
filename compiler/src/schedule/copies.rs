//! Copies of tensors with their dimensions permuted: of what is read across its rows, and of results that would be stored across theirs.

use super::expand::View;
use super::loads::{Load, Work, copied_cost, is_away, is_cheap_to_copy, lane_cost};
use super::{Planner, tile};
use crate::ir::{Clause, Definition, Expr, Index, Keep, Node, TensorId, VarId};
use std::collections::HashMap;

/// The dimension of a large result that the lanes run along, if it is not the last one and a copy is cheap beside a sum: every lane would be stored in
/// another line of memory, and every line be fetched and stored for each of its elements.
pub fn put_apart(
    view: &View<'_>,
    tensor: TensorId,
    clause: &Clause,
    lane: VarId,
    loads: &[Load],
    work: Work,
) -> Option<usize> {
    let far = is_away(view, tensor);
    let sum = loads.iter().any(|l| l.weight >= 8.0);
    let apart = view.address(tensor, &clause.at).coefficient(lane) > 1;
    let once = clause.at.iter().filter(|i| i.uses(lane)).count() == 1;
    if !(far && sum && apart && once && is_cheap_to_copy(work.points, work)) {
        return None;
    }
    clause.at.iter().position(|i| i.as_var() == Some(lane))
}

/// The kernels of a clause that defines a tensor with a dimension moved to the end, and copies it.
pub fn by_way_of_copy(
    planner: &mut Planner<'_>,
    (tensor, clause): (TensorId, &Clause),
    body: &Expr,
    dim: usize,
    site: &str,
) {
    fn moved<T>(mut all: Vec<T>, dim: usize) -> Vec<T> {
        let last = all.remove(dim);
        all.push(last);
        all
    }
    let of = planner.view.function.tensor(tensor).clone();
    let name = format!("{}.permuted", of.name);
    let copy = planner.view.function.new_tensor(name, of.elem, moved(of.dims.clone(), dim), of.span);
    let at = moved(clause.at.clone(), dim);
    let first = Clause { vars: clause.vars.clone(), at: at.clone(), body: body.clone() };
    let second = Clause { body: Expr::read(of.elem, copy, at), ..clause.clone() };
    tile::schedule(planner, copy, &first, site);
    tile::schedule(planner, tensor, &second, site);
}

/// The tensors that the lanes take apart of which a copy with a dimension moved to the end pays, with that dimension.
pub fn copies(view: &View<'_>, lane: VarId, loads: &[Load], work: Work) -> Vec<(TensorId, usize)> {
    let mut chosen: Vec<(TensorId, usize)> = Vec::new();
    for l in loads {
        let (_, copyable) = lane_cost(l, lane);
        if !copyable || copied_cost(view, l, work).is_none() {
            continue;
        }
        let dim = l.at.iter().position(|i| i.as_var() == Some(lane)).expect("a copyable read has the variable bare");
        if !chosen.contains(&(l.tensor, dim)) {
            chosen.push((l.tensor, dim));
        }
    }
    chosen
}

/// Replaces reads that the lanes take apart by reads of permuted copies.
pub fn relayout(
    planner: &mut Planner<'_>,
    body: &Expr,
    lane: VarId,
    chosen: Vec<(TensorId, usize)>,
    site: &str,
) -> Expr {
    let mut copies = HashMap::new();
    for (tensor, dim) in chosen {
        copies.insert((tensor, dim), planner.permuted(tensor, dim, site));
    }
    if copies.is_empty() {
        return body.clone();
    }
    body.map_reads(&mut |e, tensor, at| {
        let dim = at.iter().position(|i| i.as_var() == Some(lane))?;
        let copy = *copies.get(&(tensor, dim))?;
        let mut at = at.to_vec();
        let last = at.remove(dim);
        at.push(last);
        let Node::Read { bounds, .. } = &*e.node else { return None };
        Some(Expr::new(e.elem, Node::Read { tensor: copy, at, bounds: *bounds }))
    })
}

/// The definition of a copy with one dimension moved to the end.
pub fn permutation(view: &mut View<'_>, tensor: TensorId, dim: usize) -> Definition {
    let source = view.function.tensor(tensor).clone();
    let mut dims = source.dims.clone();
    let moved = dims.remove(dim);
    dims.push(moved);
    let copy = view.function.new_tensor(format!("{}.permuted", source.name), source.elem, dims.clone(), source.span);
    let vars: Vec<VarId> = dims.iter().enumerate().map(|(n, &d)| view.function.new_var(format!("p{n}"), d)).collect();
    let at: Vec<Index> = vars.iter().map(|&v| v.into()).collect();
    let mut from = at.clone();
    let last = from.pop().expect("a permuted tensor has dimensions");
    from.insert(dim, last);
    let body = Expr::read(source.elem, tensor, from);
    Definition { tensor: copy, clauses: vec![Clause { vars, at, body }], keep: Keep::Auto }
}
