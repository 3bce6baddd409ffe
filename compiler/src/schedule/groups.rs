//! Which stored definitions share a kernel.
//!
//! Four kinds of group pay: readers of the same pair tensors at the same rows (they share its recomputation), light definitions
//! over the same rows, each reading the ones before it, definitions of elements side by side, and sums down the same columns (these three share the pass over
//! memory).
//! Everything else is a kernel of its own.

use super::columns::{self, Columns};
use super::expand::View;
use super::passes::{self, Element, Pass};
use super::rows::Member;
use super::storage::is_plain;
use super::{Facts, keyed};
use crate::ir::index::Sizes;
use crate::ir::{Clause, Definition, Expr, Index, Node, Stmt, TensorId, VarId};
use std::collections::BTreeSet;

/// What runs next: a group with common rows, or one statement by itself.
#[derive(Clone, Debug)]
pub enum Unit {
    /// Definitions with common rows.
    Rows(Vec<Member>),
    /// One definition (of that statement) that is nothing but a pass over the rows of what it reads.
    Row(Member, usize),
    /// The statements of these numbers, which define elements side by side, and whether what they define is a result or read by anything else.
    Pass(Vec<(usize, bool)>),
    /// The statements of these numbers, which are sums down the same columns.
    Columns(Vec<usize>),
    /// The statement of that number.
    Single(usize),
}

/// Sums down columns that may be one kernel.
struct Sums {
    statements: Vec<usize>,
    unit: usize,
    columns: Columns,
    /// What the kernel reads and writes.
    tensors: BTreeSet<TensorId>,
}

struct Candidate {
    statements: Vec<usize>,
    members: Vec<Member>,
    /// For readers of pair tensors: which dimension of which tensor is which row.
    links: Vec<(TensorId, Vec<Option<usize>>)>,
    pairs: bool,
    /// What its kernel reads and writes.
    tensors: BTreeSet<TensorId>,
    /// The statements that are sums by key: their results are there only after the group.
    sums: Vec<usize>,
    /// A group can only be entered while nothing outside it depends on it and is needed by the newcomer.
    unit: usize,
}

/// Groups the function's stored statements; the units are in an order that respects dependencies.
pub fn group(view: &mut View<'_>, facts: &Facts) -> Vec<Unit> {
    let body = view.function.body.clone();
    let mut units: Vec<Vec<usize>> = Vec::new();
    let mut unit_of: Vec<Option<usize>> = vec![None; body.len()];
    let mut groups: Vec<Candidate> = Vec::new();
    let mut passes: Vec<Pass> = Vec::new();
    let mut sums: Vec<Sums> = Vec::new();
    let needs = direct_needs(view, &body);
    for (n, stmt) in body.iter().enumerate() {
        if stmt.defines().iter().all(|&t| view.is_virtual(t)) {
            continue;
        }
        let plain = match stmt {
            Stmt::Define(d) if is_plain(d) && !view.is_of_parts(d.tensor) => Some(d),
            _ => None,
        };
        let order = Order { units: &units, unit_of: &unit_of, needs: &needs };
        let down = plain.and_then(|d| columns::whole_sum(view, facts, d).map(|found| (d, found)));
        let joined = match (&down, plain) {
            (Some((d, found)), _) if let Some(unit) = join_sums(view, facts, (d, n), found, &mut sums, &order) => {
                // With several sums it is one of columns, and takes nothing else.
                groups.retain(|g| g.unit != unit);
                Some(unit)
            }
            (_, Some(d)) => {
                let joined = try_join(view, facts, d, n, &mut groups, &order);
                joined.or_else(|| join_pass(&passes::element(view, d)?, n, facts.tensors, &mut passes, &order))
            }
            _ => None,
        };
        let unit = joined.unwrap_or_else(|| {
            units.push(Vec::new());
            units.len() - 1
        });
        units[unit].push(n);
        unit_of[n] = Some(unit);
        if let (None, Some(d)) = (joined, plain) {
            if let Some((_, (columns, _))) = down {
                let reads = deep_reads(view, &d.clauses[0]);
                let tensors = tensors(view, d.tensor, &reads);
                sums.push(Sums { statements: vec![n], unit, columns, tensors });
            }
            if let Some(c) = candidate(view, facts, d, n, unit) {
                groups.push(c);
            } else if let Some(element) = passes::element(view, d) {
                passes.push(Pass::new(element, n, unit));
            }
        }
    }
    order(units, &unit_of, &needs)
        .into_iter()
        .map(|statements| match groups.iter().find(|g| g.statements == statements) {
            Some(g) if g.members.len() > 1 || (g.pairs && !is_all_rows(&g.members[0])) => Unit::Rows(g.members.clone()),
            Some(g) => Unit::Row(g.members[0].clone(), statements[0]),
            None if statements.len() > 1 && sums.iter().any(|s| s.statements == statements) => {
                Unit::Columns(statements)
            }
            None if statements.len() > 1 => {
                let results = &view.function.results;
                let is_result = |n: usize| results.iter().any(|r| body[n].defines().contains(&r.tensor));
                let read = |n: usize| {
                    needs
                        .iter()
                        .enumerate()
                        .any(|(m, needs)| unit_of[m].is_some() && !statements.contains(&m) && needs.contains(&n))
                };
                Unit::Pass(statements.iter().map(|&n| (n, is_result(n) || read(n))).collect())
            }
            None => Unit::Single(statements[0]),
        })
        .collect()
}

/// Whether a member alone reads each pair just once, so that it shares nothing with itself: a register tile shares more.
fn is_all_rows(m: &Member) -> bool {
    m.sum.is_none() && m.clause.vars.iter().all(|v| m.rows.contains(v))
}

/// For every stored statement the stored statements whose results it reads, also through virtual definitions.
fn direct_needs(view: &View<'_>, body: &[Stmt]) -> Vec<Vec<usize>> {
    let mut source: Vec<Vec<usize>> = vec![Vec::new(); view.function.tensors.len()];
    let mut out = Vec::new();
    for (n, stmt) in body.iter().enumerate() {
        let mut needs: Vec<usize> = stmt.reads().iter().flat_map(|t| source[t.index()].clone()).collect();
        needs.sort_unstable();
        needs.dedup();
        for t in stmt.defines() {
            source[t.index()] = if view.is_virtual(t) { needs.clone() } else { vec![n] };
        }
        out.push(needs);
    }
    out
}

/// Units in an order in which each comes after what it needs.
fn order(units: Vec<Vec<usize>>, unit_of: &[Option<usize>], needs: &[Vec<usize>]) -> Vec<Vec<usize>> {
    fn visit(
        u: usize,
        units: &[Vec<usize>],
        unit_of: &[Option<usize>],
        needs: &[Vec<usize>],
        seen: &mut [bool],
        out: &mut Vec<usize>,
    ) {
        if std::mem::replace(&mut seen[u], true) {
            return;
        }
        for &n in &units[u] {
            for &m in &needs[n] {
                if let Some(v) = unit_of[m]
                    && v != u
                {
                    visit(v, units, unit_of, needs, seen, out);
                }
            }
        }
        out.push(u);
    }
    let mut seen = vec![false; units.len()];
    let mut out = Vec::new();
    for u in 0..units.len() {
        visit(u, &units, unit_of, needs, &mut seen, &mut out);
    }
    out.into_iter().map(|u| units[u].clone()).collect()
}

/// Every read of a definition with virtual ones inlined; pair tensors and the given ones are listed and not looked into, unless they are virtual.
pub fn deep_reads(view: &mut View<'_>, clause: &Clause) -> Vec<(TensorId, Vec<Index>)> {
    fn walk(view: &mut View<'_>, e: &Expr, out: &mut Vec<(TensorId, Vec<Index>)>) {
        let mut reads = Vec::new();
        e.visit_reads(&mut |t, at| reads.push((t, at.to_vec())));
        for (t, at) in reads {
            out.push((t, at.clone()));
            if view.is_virtual(t) {
                let body = view.body_at(t, &at);
                walk(view, &body, out);
            }
        }
    }
    let mut out = Vec::new();
    walk(view, &clause.body, &mut out);
    out
}

/// The rows a definition could have by itself.
fn candidate(view: &mut View<'_>, facts: &Facts, d: &Definition, n: usize, unit: usize) -> Option<Candidate> {
    let clause = &d.clauses[0];
    let reads = deep_reads(view, clause);
    if let Some(member) = by_key(view, facts, d, &reads) {
        let reads = deep_reads(view, &member.clause);
        let links = links(view, &member.rows, &reads);
        let tensors = tensors(view, d.tensor, &reads);
        let (statements, sums) = (vec![n], vec![n]);
        return Some(Candidate { statements, members: vec![member], links, pairs: true, tensors, sums, unit });
    }
    let pairs = reads.iter().any(|(t, _)| view.is_pair(*t));
    let rows: Vec<VarId> = if pairs {
        let rows = pair_rows(view, clause, &reads)?;
        if rows.is_empty() {
            return None;
        }
        rows
    } else {
        let body = view.expand(&clause.body, &mut |_, _, _| None);
        if !is_light(view, clause, &reads) || !super::along::has_reduce(&body) {
            return None;
        }
        clause.vars.clone()
    };
    if rows.iter().all(|&v| view.size_of(v) == 1) {
        return None;
    }
    let links = links(view, &rows, &reads);
    let tensors = tensors(view, d.tensor, &reads);
    let member = Member { tensor: d.tensor, clause: clause.clone(), rows, sum: None };
    Some(Candidate { statements: vec![n], members: vec![member], links, pairs, tensors, sums: Vec::new(), unit })
}

/// What has memory of what a definition writes and reads.
fn tensors(view: &View<'_>, defined: TensorId, reads: &[(TensorId, Vec<Index>)]) -> BTreeSet<TensorId> {
    let read = reads.iter().map(|(t, _)| *t).filter(|t| !view.is_virtual(*t));
    read.chain([defined]).collect()
}

/// A definition that reads pairs at other places than rows, as a sum by key.
fn by_key(view: &mut View<'_>, facts: &Facts, d: &Definition, reads: &[(TensorId, Vec<Index>)]) -> Option<Member> {
    let clause = &d.clauses[0];
    let pairs = reads.iter().any(|(t, _)| view.is_pair(*t));
    if !pairs || pair_rows(view, clause, reads).is_some() {
        return None;
    }
    keyed::recognise(view, facts, d.tensor, clause)
}

/// The variables of a definition that index pair tensors; `None` if an index mixes one of them with something else.
fn pair_rows(view: &View<'_>, clause: &Clause, reads: &[(TensorId, Vec<Index>)]) -> Option<Vec<VarId>> {
    let mut rows = Vec::new();
    for (t, at) in reads {
        if !view.is_pair(*t) {
            continue;
        }
        for i in at {
            match i.as_var().filter(|v| clause.vars.contains(v)) {
                Some(v) if rows.contains(&v) => {}
                Some(v) => rows.push(v),
                None if clause.vars.iter().any(|&v| i.uses(v)) => return None,
                None => {}
            }
        }
    }
    rows.sort_by_key(|v| clause.vars.iter().position(|w| w == v));
    Some(rows)
}

/// Which dimension of each pair tensor is which row.
fn links(view: &View<'_>, rows: &[VarId], reads: &[(TensorId, Vec<Index>)]) -> Vec<(TensorId, Vec<Option<usize>>)> {
    let mut out: Vec<(TensorId, Vec<Option<usize>>)> = Vec::new();
    for (t, at) in reads {
        if view.is_pair(*t) && !out.iter().any(|(u, _)| u == t) {
            out.push((*t, at.iter().map(|i| i.as_var().and_then(|v| rows.iter().position(|r| *r == v))).collect()));
        }
    }
    out
}

/// Whether every point of the definition's loops touches data of its own: a pass over memory rather than a contraction.
fn is_light(view: &mut View<'_>, clause: &Clause, reads: &[(TensorId, Vec<Index>)]) -> bool {
    let outer: i64 = clause.vars.iter().map(|&v| view.size_of(v)).product();
    let body = view.expand(&clause.body, &mut |_, _, _| None);
    let inner = deepest(view, &body);
    let largest =
        reads.iter().filter(|(t, _)| !view.is_virtual(*t)).map(|(t, _)| view.shape(*t).iter().product::<usize>()).max();
    outer * inner <= 2 * largest.unwrap_or(0) as i64
}

/// The most points of nested reductions.
fn deepest(view: &View<'_>, e: &Expr) -> i64 {
    let mut inner = 1;
    e.for_each_child(&mut |c| inner = inner.max(deepest(view, c)));
    match &*e.node {
        Node::Reduce(r) => deepest(view, &r.body) * r.vars.iter().map(|&v| view.size_of(v)).product::<i64>(),
        _ => inner,
    }
}

/// The units so far, and what statements need.
struct Order<'a> {
    units: &'a [Vec<usize>],
    unit_of: &'a [Option<usize>],
    needs: &'a [Vec<usize>],
}

fn try_join(
    view: &mut View<'_>,
    facts: &Facts,
    d: &Definition,
    n: usize,
    groups: &mut [Candidate],
    order: &Order<'_>,
) -> Option<usize> {
    let reads = deep_reads(view, &d.clauses[0]);
    let pairs = reads.iter().any(|(t, _)| view.is_pair(*t));
    let member = by_key(view, facts, d, &reads);
    let (clause, reads) = match &member {
        Some(m) => (&m.clause, deep_reads(view, &m.clause)),
        None => (&d.clauses[0], reads),
    };
    if !pairs && !is_light(view, clause, &reads) {
        return None;
    }
    // The rows of its own pairs; those of a sum by key are not all that its clause has for variables.
    let own = match &member {
        Some(m) => Some(m.rows.clone()),
        None if pairs => Some(pair_rows(view, clause, &reads)?),
        None => None,
    };
    let tensors = tensors(view, d.tensor, &reads);
    for g in groups.iter_mut().rev() {
        if g.tensors.union(&tensors).count() > facts.tensors {
            continue;
        }
        if !independent(g.unit, &g.statements, n, order) || order.needs[n].iter().any(|m| g.sums.contains(m)) {
            continue;
        }
        let Some(rows) = common_rows(g, clause, &reads, own.as_deref()) else { continue };
        // The same sizes, row by row.
        let first = &g.members[0];
        if rows.iter().zip(&first.rows).any(|(&a, &b)| view.size_of(a) != view.size_of(b)) {
            continue;
        }
        let own: Vec<Index> = clause.vars.iter().map(|&v| v.into()).collect();
        let mut touched = reads.iter().map(|(t, at)| (*t, at)).chain([(d.tensor, &own)]);
        if !pairs && !g.pairs && touched.any(|(t, at)| lie_apart(view, facts, t, at, &rows)) {
            continue;
        }
        for (t, link) in links(view, &rows, &reads) {
            if !g.links.iter().any(|(u, _)| *u == t) {
                g.links.push((t, link));
            }
        }
        g.pairs |= pairs;
        g.tensors.extend(tensors);
        g.statements.push(n);
        let sum = member.as_ref().and_then(|m| m.sum.clone());
        if sum.is_some() {
            g.sums.push(n);
        }
        g.members.push(Member { tensor: d.tensor, clause: clause.clone(), rows, sum });
        return Some(g.unit);
    }
    None
}

/// Whether a row's elements of a tensor are far from each other, and too many for that to do no harm: to go over them row by row takes a line of
/// the cache for every vector, and leaves work items as few as there are vectors of rows.
fn lie_apart(view: &View<'_>, facts: &Facts, tensor: TensorId, at: &[Index], rows: &[VarId]) -> bool {
    let Some((last, others)) = at.split_last() else { return false };
    let of_row = |i: &Index| rows.iter().any(|&v| i.uses(v));
    let within_row = |i: &Index| i.as_const().is_none() && !of_row(i);
    let elements: usize = view.shape(tensor).iter().product();
    !view.is_virtual(tensor) && of_row(last) && others.iter().any(within_row) && elements > facts.local_bytes
}

/// The last sums that go down the same columns as a definition, and take it.
fn join_sums(
    view: &mut View<'_>,
    facts: &Facts,
    (d, n): (&Definition, usize),
    (columns, clause): &(Columns, Clause),
    sums: &mut [Sums],
    order: &Order<'_>,
) -> Option<usize> {
    let reads = deep_reads(view, &d.clauses[0]);
    let tensors = tensors(view, d.tensor, &reads);
    for s in sums.iter_mut().rev() {
        let alone = order.units[s.unit] == s.statements && independent(s.unit, &s.statements, n, order);
        if !alone || s.tensors.union(&tensors).count() > facts.tensors {
            continue;
        }
        let Some((together, _)) = s.columns.with(view, facts, columns, clause) else { continue };
        s.columns = together;
        s.tensors.extend(tensors);
        s.statements.push(n);
        return Some(s.unit);
    }
    None
}

/// The last pass that takes a definition of elements, and takes it.
fn join_pass(element: &Element, n: usize, most: usize, passes: &mut [Pass], order: &Order<'_>) -> Option<usize> {
    let fits = |p: &&mut Pass| p.takes(element, most) && independent(p.unit, &p.statements, n, order);
    let pass = passes.iter_mut().rev().find(fits)?;
    pass.add(element, n);
    Some(pass.unit)
}

/// Whether nothing outside a unit with these statements stands between it and the newcomer.
fn independent(unit: usize, statements: &[usize], n: usize, order: &Order<'_>) -> bool {
    let &Order { units, unit_of, needs } = order;
    let mut stack: Vec<usize> = needs[n].iter().copied().filter(|m| !statements.contains(m)).collect();
    let mut seen = vec![false; needs.len()];
    stack.iter().for_each(|&m| seen[m] = true);
    while let Some(m) = stack.pop() {
        if unit_of[m] == Some(unit) {
            return false;
        }
        // Members of another unit run together: what any of them needs, all wait for.
        let mates = unit_of[m].map_or(std::slice::from_ref(&m), |u| &units[u]);
        for k in mates.iter().flat_map(|&k| &needs[k]) {
            if !std::mem::replace(&mut seen[*k], true) {
                stack.push(*k);
            }
        }
    }
    true
}

/// The newcomer's variables for the group's rows, if it has the same rows and reads members only there.
fn common_rows(
    g: &Candidate,
    clause: &Clause,
    reads: &[(TensorId, Vec<Index>)],
    own: Option<&[VarId]>,
) -> Option<Vec<VarId>> {
    let count = g.members[0].rows.len();
    let mut rows: Vec<Option<VarId>> = vec![None; count];
    let mut set = |r: usize, i: &Index| -> bool {
        match i.as_var() {
            Some(v) if clause.vars.contains(&v) => match rows[r] {
                None => {
                    rows[r] = Some(v);
                    true
                }
                Some(old) => old == v,
            },
            _ => false,
        }
    };
    let mut touched = false;
    for (t, at) in reads {
        if let Some(m) = g.members.iter().find(|m| m.tensor == *t) {
            touched = true;
            for (k, v) in m.clause.vars.iter().enumerate() {
                if let Some(r) = m.rows.iter().position(|row| row == v)
                    && !set(r, &at[k])
                {
                    return None;
                }
            }
        }
        if let Some((_, link)) = g.links.iter().find(|(u, _)| u == t) {
            touched = true;
            for (k, row) in link.iter().enumerate() {
                if let Some(r) = row
                    && !set(*r, &at[k])
                {
                    return None;
                }
            }
        }
    }
    let rows: Vec<VarId> = rows.into_iter().collect::<Option<_>>()?;
    if !touched || (1..rows.len()).any(|k| rows[..k].contains(&rows[k])) {
        return None;
    }
    // Its own pair reads must not ask for other rows.
    if own.is_some_and(|own| own.iter().any(|v| !rows.contains(v))) {
        return None;
    }
    Some(rows)
}
