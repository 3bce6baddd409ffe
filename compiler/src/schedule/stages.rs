//! What a row kernel keeps in local arrays: virtual tensors that it would compute again and again, stored ones that its lanes would take
//! apart again and again.

use super::Facts;
use super::blocks::Block;
use super::cost::{expr_cost, points};
use super::expand::View;
use super::lanes;
use super::rows::Member;
use crate::ir::index::Sizes;
use crate::ir::{Atom, Expr, Index, Node, TensorId, VarId};

/// A virtual or stored tensor at the kernel's row, dimension by dimension.
pub type Key = (TensorId, Vec<Part>);

/// What a row reads of a dimension.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// One place.
    Fixed(Index),
    /// So many places, from this one on, or backwards.
    Span {
        /// The first place.
        start: Index,
        /// How many there are.
        count: usize,
        /// Whether each lies before the one before it.
        back: bool,
    },
}

/// New variables for the spans of a key, and the indices that read it.
pub fn open(view: &mut View<'_>, key: &Key) -> (Vec<VarId>, Vec<Index>) {
    let mut vars = Vec::new();
    let mut at = Vec::new();
    for part in &key.1 {
        at.push(match part {
            Part::Fixed(i) => i.clone(),
            Part::Span { start, count, back } => {
                let v = view.var("s", *count);
                vars.push(v);
                start.add(&Index::from(v).scale(if *back { -1 } else { 1 }))
            }
        });
    }
    (vars, at)
}

/// The key of a read whose every index is fixed in the row, or that plus or minus a variable of its own, with those variables. What is fixed in the row are indices of
/// the kernel's row variables, which have values outside all loops.
pub fn key(view: &View<'_>, tensor: TensorId, at: &[Index]) -> Option<(Key, Vec<Index>)> {
    let shape = view.shape(tensor);
    let mut own: Vec<Index> = Vec::new();
    let mut parts = Vec::new();
    for (i, &n) in at.iter().zip(&shape) {
        // A stage is filled outside the guards of its readers.
        let (lo, hi) = i.range(view)?;
        if i.is_data() || lo < 0 || hi >= n as i64 {
            return None;
        }
        let mut moving: Option<(VarId, i64)> = None;
        let mut start = Index::from(i.offset);
        for (atom, c) in &i.terms {
            let term = Index::atom(atom.clone());
            let mut fixed = true;
            term.visit_vars(&mut |v| fixed &= view.row_vars.contains(&v));
            match (fixed, atom, moving) {
                (true, ..) => start = start.add(&term.scale(*c)),
                (false, Atom::Var(v), None) if c.abs() == 1 => moving = Some((*v, *c)),
                _ => return None,
            }
        }
        match moving {
            None => parts.push(Part::Fixed(i.clone())),
            Some((v, _)) if own.contains(&v.into()) => return None,
            Some((v, c)) => {
                own.push(v.into());
                parts.push(Part::Span { start, count: view.size_of(v) as usize, back: c < 0 });
            }
        }
    }
    (!own.is_empty()).then_some(((tensor, parts), own))
}

/// Which keys are worth a local array of an item's vectors a place, and whether all of those fit. With `own_too`, also what members before have stored.
pub fn choose(
    view: &mut View<'_>,
    facts: &Facts,
    lane: VarId,
    roots: &[(Vec<VarId>, Expr)],
    block: Block,
    members: &[Member],
    own_too: bool,
) -> (Vec<Key>, bool) {
    let mut evals: Vec<(Key, f64)> = Vec::new();
    let own: Vec<TensorId> = members.iter().map(|m| m.tensor).collect();
    for (inner, body) in roots {
        let times = points(&view.axes, &view.function, inner) as f64;
        count(view, body, times, &mut evals);
    }
    // Virtual tensors in reverse order of definition, so that readers are decided before what they read.
    let mut order: Vec<TensorId> = view.function.body.iter().rev().flat_map(|s| s.defines()).collect();
    order.retain(|&t| view.is_virtual(t));
    let mut chosen = Vec::new();
    let mut bytes = 0;
    let mut fits = true;
    for t in order {
        let mut n = 0;
        while let Some(p) = evals[n..].iter().position(|((tensor, _), _)| *tensor == t) {
            n += p;
            let (key, times) = evals[n].clone();
            n += 1;
            let (vars, at) = open(view, &key);
            let size = points(&view.axes, &view.function, &vars) as f64;
            let body = view.body_at(t, &at);
            let cost = deep_cost(view, &body);
            let ratio = times / size;
            let mut inner = times;
            if ratio > 1.01 && (ratio - 1.0) * cost > 2.0 * ratio + 2.0 {
                let need = size as usize * block.lanes() * 4;
                if bytes + need <= facts.local_bytes {
                    bytes += need;
                    chosen.push(key);
                    inner = size;
                } else {
                    fits = false;
                }
            }
            count(view, &body, inner, &mut evals);
        }
    }
    // Stored tensors that the lanes would take apart again and again, or that are better loaded along the row and then turned.
    for (key, times) in &evals {
        if view.is_virtual(key.0) || (own.contains(&key.0) && !own_too) {
            continue;
        }
        let (vars, at) = open(view, key);
        let size = points(&view.axes, &view.function, &vars) as f64;
        let address = view.address(key.0, &at);
        let apart = address.uses(lane) && address.coefficient(lane) != 1;
        let need = size as usize * block.lanes() * 4;
        let turns = vars.last().is_some_and(|&v| {
            block.width > 1 && view.size_of(v) as usize >= block.width && lanes::contiguous(&address, v)
        });
        if apart && (turns || *times > 1.5 * size) && bytes + need <= facts.local_bytes {
            bytes += need;
            chosen.push(key.clone());
        }
    }
    (chosen, fits)
}

/// Adds how often each key is read by an expression that is evaluated `times` times; reads that have no key are inlined.
fn count(view: &mut View<'_>, e: &Expr, times: f64, out: &mut Vec<(Key, f64)>) {
    match &*e.node {
        Node::Reduce(r) => {
            let n = points(&view.axes, &view.function, &r.vars) as f64;
            return count(view, &r.body, times * n, out);
        }
        Node::Read { tensor, at, .. } => match key(view, *tensor, at) {
            Some((key, _)) => match out.iter_mut().find(|(k, _)| *k == key) {
                Some((_, n)) => *n += times,
                None => out.push((key, times)),
            },
            None if view.is_virtual(*tensor) => {
                let body = view.body_at(*tensor, at);
                count(view, &body, times, out);
            }
            None => {}
        },
        _ => {}
    }
    e.for_each_child(&mut |c| count(view, c, times, out));
}

/// The cost of a body with everything virtual in it inlined.
fn deep_cost(view: &mut View<'_>, body: &Expr) -> f64 {
    let body = view.expand(body, &mut |_, _, _| None);
    expr_cost(&view.axes, &view.function, &body)
}
