//! Parts of a tensor that are written where they belong.
//!
//! A definition may be nothing but others side by side along one dimension, each read nowhere else: the gradient of what has been cut into query, key and value,
//! say. Then these have no memory of their own. Their kernels write into the whole, which takes no kernel at all.

use super::storage::{Storage, is_plain};
use crate::ir::{BinaryOp, Bounds, Clause, Definition, Expr, Function, Index, Node, Program, Stmt, TensorId, VarId};
use std::collections::HashMap;

/// Where a part begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// What it is a part of.
    pub whole: TensorId,
    /// The dimension along which the parts lie.
    pub dim: usize,
    /// Where it begins along that.
    pub from: i64,
}

/// The places of all parts of a function's tensors.
pub fn find(program: &Program, function: &Function, storage: &Storage) -> HashMap<TensorId, Place> {
    let mut reads = vec![0usize; function.tensors.len()];
    let mut defined: HashMap<TensorId, &Definition> = HashMap::new();
    for stmt in &function.body {
        match stmt {
            Stmt::Define(d) => {
                defined.insert(d.tensor, d);
                d.clauses.iter().for_each(|c| c.body.visit_reads(&mut |t, _| reads[t.index()] += 1));
            }
            _ => stmt.reads().into_iter().for_each(|t| reads[t.index()] += 1),
        }
    }
    // A result is read by whoever called.
    function.results.iter().for_each(|r| reads[r.tensor.index()] += 1);
    let is_part = |whole: &Definition, t: TensorId| {
        let of = |t: TensorId| function.tensor(t).elem;
        storage.stored[t.index()] && reads[t.index()] == 1 && of(t) == of(whole.tensor) && defined.contains_key(&t)
    };
    let mut places = HashMap::new();
    for &d in defined.values().filter(|d| is_plain(d) && storage.stored[d.tensor.index()]) {
        let Some((dim, parts)) = side_by_side(program, function, d.tensor, &d.clauses[0]) else { continue };
        if parts.iter().all(|&(t, _)| is_part(d, t)) {
            places.extend(parts.into_iter().map(|(t, from)| (t, Place { whole: d.tensor, dim, from })));
        }
    }
    // What is a part of a part would be two steps away.
    let inner: Vec<TensorId> = places.values().map(|p| p.whole).filter(|t| places.contains_key(t)).collect();
    places.retain(|_, place| !inner.contains(&place.whole));
    places
}

/// The tensors that fill a plain clause's tensor side by side, with where each begins along which dimension.
fn side_by_side(
    program: &Program,
    function: &Function,
    whole: TensorId,
    clause: &Clause,
) -> Option<(usize, Vec<(TensorId, i64)>)> {
    let shape = program.shape(function, whole);
    let mut parts: Vec<(TensorId, Vec<i64>)> = Vec::new();
    let all = addends(&clause.body, &mut |e| {
        let part = shifted(e, &clause.vars);
        let is = part.is_some();
        parts.extend(part);
        is
    });
    if !all {
        return None;
    }
    let own = |t: TensorId| program.shape(function, t);
    let dim = (0..shape.len()).find(|&n| parts.iter().any(|(t, _)| own(*t)[n] != shape[n]))?;
    let others = || (0..shape.len()).filter(|&n| n != dim);
    if !parts.iter().all(|(t, begins)| others().all(|n| begins[n] == 0 && own(*t)[n] == shape[n])) {
        return None;
    }
    parts.sort_by_key(|(_, begins)| begins[dim]);
    let mut end = 0;
    for (t, begins) in &parts {
        if begins[dim] != end {
            return None;
        }
        end += own(*t)[dim] as i64;
    }
    (end == shape[dim] as i64 && parts.len() > 1)
        .then(|| (dim, parts.into_iter().map(|(t, begins)| (t, begins[dim])).collect()))
}

/// The tensor that is read at some variables, each less what its dimension begins with, and 0 outside; with these beginnings.
fn shifted(e: &Expr, vars: &[VarId]) -> Option<(TensorId, Vec<i64>)> {
    let Node::Read { tensor, at, bounds: Bounds::Zero } = &*e.node else { return None };
    let begin = |(i, v): (&Index, &VarId)| (i.plus(-i.offset).as_var() == Some(*v)).then_some(-i.offset);
    if at.len() != vars.len() {
        return None;
    }
    Some((*tensor, at.iter().zip(vars).map(begin).collect::<Option<Vec<i64>>>()?))
}

/// Whether all that an expression adds up is what it has to be.
fn addends(e: &Expr, is: &mut dyn FnMut(&Expr) -> bool) -> bool {
    match &*e.node {
        Node::Binary(BinaryOp::Add, a, b) => addends(a, is) && addends(b, is),
        _ => is(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Elem, Pred};
    use crate::schedule::{Facts, KernelGraph, schedule};
    use crate::testing::{Make, arguments, check_schedule, rd};

    /// Products of `x` with weights, of so many columns each, side by side from these columns on; `shared` is read by another result, too.
    fn parts(n: usize, parts: &[(usize, i64)], shared: bool) -> Program {
        let mut m = Make::new();
        let whole = parts.iter().map(|&(size, from)| size + from as usize).max().expect("parts");
        let x = m.input("x", &[n, 9]);
        let (i, j) = (m.var(n), m.var(whole));
        let mut sum: Option<Expr> = None;
        for (number, &(size, from)) in parts.iter().enumerate() {
            let w = m.param(&format!("w{number}"), &[size, 9]);
            let [row, column, k] = [n, size, 9].map(|n| m.var(n));
            let product = Expr::mul(rd(x, &[row, k]), rd(w, &[column, k]));
            let part = m.def(&format!("part{number}"), &[row, column], Expr::sum(vec![k], Pred::True, product));
            let read = Expr::read_or_zero(Elem::F32, part, vec![i.into(), Index::from(j).plus(-from)]);
            sum = Some(sum.map_or(read.clone(), |s| Expr::add(s, read)));
            if shared && number == 0 {
                let [a, b] = [m.var(n), m.var(size)];
                let twice = m.def("twice", &[a, b], Expr::add(rd(part, &[a, b]), rd(part, &[a, b])));
                m.result(twice);
            }
        }
        let y = m.def("y", &[i, j], sum.expect("parts"));
        let weight = m.param("v", &[whole]);
        let [a, b] = [m.var(n), m.var(whole)];
        let z = m.def("z", &[a, b], Expr::mul(rd(y, &[a, b]), rd(weight, &[b])));
        [y, z].into_iter().for_each(|t| m.result(t));
        m.program()
    }

    fn names(graph: &KernelGraph) -> Vec<&str> {
        graph.buffers.iter().map(|b| b.name.as_str()).filter(|n| n.starts_with("part")).collect()
    }

    #[test]
    fn parts_are_written_where_they_belong() {
        for n in [1, 7, 33, 64] {
            for sizes in [&[(16, 16), (16, 0)][..], &[(5, 0), (11, 5)], &[(32, 32), (1, 0), (31, 1)]] {
                let program = parts(n, sizes, false);
                check_schedule(&program, &arguments(&program));
                for lanes in [1, 4, 16] {
                    let graph = schedule(&program, &Facts { lanes, ..Facts::USUAL });
                    assert!(names(&graph).is_empty(), "{:?}", names(&graph));
                }
            }
        }
    }

    #[test]
    fn others_have_memory_of_their_own() {
        // With a gap, over one another, and with another reader.
        for (sizes, shared) in [(&[(8, 0), (8, 9)][..], false), (&[(8, 0), (8, 7)], false), (&[(8, 0), (8, 8)], true)] {
            let program = parts(19, sizes, shared);
            check_schedule(&program, &arguments(&program));
            assert_eq!(names(&schedule(&program, &Facts::USUAL)).len(), 2, "{sizes:?}");
        }
    }

    #[test]
    fn a_row_of_something_is_no_part() {
        let mut m = Make::new();
        let (x, i, j) = (m.input("x", &[6, 9]), m.var(6), m.var(16));
        let halves = [0, 8].map(|from| {
            let w = m.param(&format!("w{from}"), &[8, 3, 9]);
            let [row, column, which, k] = [6, 8, 3, 9].map(|n| m.var(n));
            let product = Expr::mul(rd(x, &[row, k]), rd(w, &[column, which, k]));
            let sum = Expr::sum(vec![k], Pred::True, product);
            let half = m.def(&format!("part{from}"), &[row, column, which], sum);
            Expr::read_or_zero(Elem::F32, half, vec![i.into(), Index::from(j).plus(-from), 2.into()])
        });
        let [first, second] = halves;
        let y = m.def("y", &[i, j], Expr::add(first, second));
        m.result(y);
        let program = m.program();
        check_schedule(&program, &arguments(&program));
        assert_eq!(names(&schedule(&program, &Facts::USUAL)).len(), 2);
    }

    #[test]
    fn parts_of_parts_are_one_step_away() {
        let mut m = Make::new();
        let x = m.input("x", &[6, 9]);
        let mut last: Option<(TensorId, usize)> = None;
        for number in 0..3 {
            let w = m.param(&format!("w{number}"), &[8, 9]);
            let [row, column, k] = [6, 8, 9].map(|n| m.var(n));
            let product = Expr::mul(rd(x, &[row, k]), rd(w, &[column, k]));
            let part = m.def(&format!("part{number}"), &[row, column], Expr::sum(vec![k], Pred::True, product));
            last = Some(match last {
                None => (part, 8),
                Some((before, size)) => {
                    let (i, j) = (m.var(6), m.var(size + 8));
                    let read = |t, from: usize| {
                        Expr::read_or_zero(Elem::F32, t, vec![i.into(), Index::from(j).plus(-(from as i64))])
                    };
                    let sum = Expr::add(read(before, 0), read(part, size));
                    (m.def(&format!("of{number}"), &[i, j], sum), size + 8)
                }
            });
        }
        let (y, size) = last.expect("parts");
        let [a, b] = [m.var(6), m.var(size)];
        let z = m.def("z", &[a, b], Expr::mul(rd(y, &[a, b]), rd(y, &[a, b])));
        [y, z].into_iter().for_each(|t| m.result(t));
        let program = m.program();
        check_schedule(&program, &arguments(&program));
    }
}
