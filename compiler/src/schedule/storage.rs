//! Which definitions get memory and which are computed where they are read.
//!
//! A definition is *stored* (one kernel writes it, others read it) or *virtual* (every reader computes what it needs). The rules, with
//! `evals` the number of times an element would be computed if it were virtual:
//!
//! * results, arguments of calls and definitions by several clauses are stored;
//! * a *pair* tensor is virtual: a sum of products of two tensors that both depend on the data, larger than either of
//!   them (scores of all pairs of tokens), and whatever is computed from such a tensor point by point. Storing one would cost memory that grows faster than
//!   everything else; its readers recompute it in local memory. Where a device has units for all pairs at once ([`Facts::pairs`](super::Facts)), those of a moderate size are
//!   stored like anything else;
//! * a pointwise definition that is larger than all it is made of is virtual where a pair tensor reads it, since it is as large as that;
//! * any other pointwise definition is virtual if computing it again costs no more than writing and reading it, unless it can be stored in the place of
//!   something that it is made of and that nothing else reads;
//! * a reduction is virtual if its one reader is a pointwise definition that reads each element at one point (an epilogue), or
//!   if its domain is tiny. Of several long ones that would come together in one kernel so, only one is: a register tile has room for one sum. But where they are
//!   added up and [`join`](super::join) can make one sum of them, all are.

use super::cost::{expr_cost, points};
use super::join;
use crate::ir::index::goes_through;
use crate::ir::{
    ArgRole, BinaryOp, Clause, Definition, Expr, Function, Index, Monoid, Node, Program, Stmt, TensorId, VarId,
    VarSizes,
};

/// The fewest points of a sum that fills the registers by itself.
const LONG: usize = 8;

/// The storage decision for every tensor of a function.
#[derive(Clone, Debug)]
pub struct Storage {
    /// Whether the tensor has memory.
    pub stored: Vec<bool>,
    /// Whether it is a pair tensor.
    pub pair: Vec<bool>,
}

/// Decides for every tensor of the function; `joins` says whether sums that are added up become one. Tensors of all pairs with at most so many elements
/// are stored like others.
pub fn decide(program: &Program, function: &Function, joins: bool, pairs: usize) -> Storage {
    let n = function.tensors.len();
    let data = data_dependent(function);
    let mut forced = vec![false; n];
    for r in &function.results {
        forced[r.tensor.index()] = true;
    }
    for stmt in &function.body {
        match stmt {
            Stmt::Call(c) => c.args.iter().chain(&c.results).for_each(|t| forced[t.index()] = true),
            Stmt::Components(c) => [c.mask, c.labels].iter().for_each(|t| forced[t.index()] = true),
            Stmt::Define(d) => forced[d.tensor.index()] |= !is_plain(d),
        }
    }
    let mut out = Storage { stored: vec![true; n], pair: vec![false; n] };
    for stmt in &function.body {
        let Stmt::Define(d) = stmt else { continue };
        if forced[d.tensor.index()] {
            continue;
        }
        let body = &d.clauses[0].body;
        out.pair[d.tensor.index()] = match &*body.node {
            Node::Reduce(_) => {
                let elements: usize = program.shape(function, d.tensor).iter().product();
                elements > pairs && is_interaction(program, function, d, &data)
            }
            _ => {
                let mut reads_pair = false;
                body.visit_reads(&mut |t, _| reads_pair |= out.pair[t.index()]);
                reads_pair
            }
        };
    }

    let spread = spread_out(program, function, &forced);
    let sources = own_sources(program, function, &forced);
    let mut definitions: Vec<Option<&Definition>> = vec![None; n];
    for stmt in &function.body {
        if let Stmt::Define(d) = stmt {
            definitions[d.tensor.index()] = Some(d);
        }
    }
    let chain = Chain { program, function, sources, definitions };
    let mut in_pair = vec![false; n];
    let mut evals = vec![0f64; n];
    let mut readers = vec![0usize; n];
    let mut epilogue_only = vec![true; n];
    // The stored definition in whose kernel a virtual one is computed, if it is one, and those that have a long sum already.
    let mut host: Vec<Option<usize>> = vec![None; n];
    let mut has_sum = vec![false; n];
    // What those of them that it adds up have in common, and how many they are.
    let mut added: Vec<Option<(AddedForm, usize)>> = vec![None; n];
    for stmt in function.body.iter().rev() {
        let Stmt::Define(d) = stmt else { continue };
        let t = d.tensor.index();
        let size = program.shape(function, d.tensor).iter().product::<usize>() as f64;
        let per_element = evals[t] / size.max(1.0);
        let long = is_long_sum(program, function, d);
        let form = (joins && long).then(|| added_form(program, function, d)).flatten();
        let adds = host[t].filter(|&h| chain.definitions[h].is_some_and(|host| is_addend(host, d.tensor)));
        let joined =
            adds.filter(|&h| matches!(&added[h], Some((other, n)) if Some(other) == form.as_ref() && *n < join::TERMS));
        let alone = !host[t].is_some_and(|h| has_sum[h]);
        let epilogue = readers[t] == 1 && epilogue_only[t] && (!long || alone || joined.is_some());
        out.stored[t] = forced[t]
            || !(out.pair[t]
                || (spread[t] && in_pair[t])
                || (keeps_virtual(program, function, d, per_element, epilogue)
                    && !chain.takes_a_place(d, per_element)));
        if out.stored[t] {
            host[t] = Some(t);
        }
        if let Some(h) = host[t] {
            has_sum[h] |= long;
            if let (false, Some(form), true) = (out.stored[t], form, adds.is_some()) {
                let others = added[h].take().map_or(0, |(_, n)| n);
                added[h] = Some((form, others + 1));
            }
        }
        let of_pair = !out.stored[t] && (out.pair[t] || in_pair[t]);
        let times = if out.stored[t] { 1.0 } else { per_element.max(1.0) };
        for clause in &d.clauses {
            let outer: f64 = clause.vars.iter().map(|&v| program.size(function.var(v).axis) as f64).product();
            // What a kernel reads twice at one point, it computes once. But where it goes through memory beside that, a pass of its own does better: it
            // foresees what it reads, and finds other values that are made of the same.
            let mut seen: Vec<(TensorId, Vec<Index>)> = Vec::new();
            let mut of_size = Vec::new();
            clause.body.visit_reads(&mut |t, _| {
                if !of_size.contains(&t) && program.shape(function, t).iter().product::<usize>() as f64 >= outer {
                    of_size.push(t);
                }
            });
            let alone = of_size.len() < 2;
            count_reads(program, function, &clause.body, outer * times, false, &mut |tensor, at, count, reduced| {
                if alone && !reduced {
                    if seen.iter().any(|(t, other)| *t == tensor && other == at) {
                        return;
                    }
                    seen.push((tensor, at.to_vec()));
                }
                evals[tensor.index()] += count;
                host[tensor.index()] = if readers[tensor.index()] == 0 { host[t] } else { None };
                readers[tensor.index()] += 1;
                in_pair[tensor.index()] |= of_pair;
                let once = reads_once(program, function, clause, tensor, at);
                epilogue_only[tensor.index()] &= once && !reduced && !out.pair[t];
            });
        }
    }
    out
}

/// The sizes of a sum's variables, and for every factor the numbers of the result's variables that it depends on.
type AddedForm = (Vec<usize>, Vec<Vec<usize>>);

/// The form of a sum that can become one with others that it is added to.
fn added_form(program: &Program, function: &Function, d: &Definition) -> Option<AddedForm> {
    let clause = &d.clauses[0];
    let Node::Reduce(r) = &*clause.body.node else { return None };
    let size = |v| program.size(function.var(v).axis);
    let (sizes, factors) = join::form(r, &size)?;
    let number = |v: VarId| clause.vars.iter().position(|&w| w == v).filter(|_| size(v) > 1);
    let numbers = |vars: Vec<VarId>| -> Vec<usize> {
        let mut numbers: Vec<usize> = vars.into_iter().filter_map(number).collect();
        numbers.sort_unstable();
        numbers
    };
    let mut factors: Vec<Vec<usize>> = factors.into_iter().map(numbers).collect();
    factors.sort();
    Some((sizes, factors))
}

/// Whether a definition adds up things of which one is a tensor's element at its own variables.
fn is_addend(d: &Definition, tensor: TensorId) -> bool {
    let [clause] = &d.clauses[..] else { return false };
    let mut all = Vec::new();
    join::addends(&clause.body, &mut all);
    let own = |at: &[Index]| {
        at.len() == clause.vars.len() && at.iter().zip(&clause.vars).all(|(i, v)| i.as_var() == Some(*v))
    };
    all.iter().any(|e| matches!(&*e.node, Node::Read { tensor: t, at, .. } if *t == tensor && own(at)))
}

/// Definitions, and what they can be stored in the place of.
struct Chain<'a> {
    program: &'a Program,
    function: &'a Function,
    sources: Vec<Vec<TensorId>>,
    definitions: Vec<Option<&'a Definition>>,
}

impl Chain<'_> {
    /// Whether a definition, computed so many times an element if it is virtual, costs no memory if it is stored: something that it is made of would be
    /// in its place, or what that is made of. What only gives elements other names is not stored.
    fn takes_a_place(&self, d: &Definition, evals: f64) -> bool {
        let names = matches!(&*d.clauses[0].body.node, Node::Read { .. });
        !names && evals > 1.0 && self.sources[d.tensor.index()].iter().any(|&s| self.is_stored(s, evals))
    }

    fn is_stored(&self, t: TensorId, evals: f64) -> bool {
        let sources = &self.sources[t.index()];
        sources.iter().any(|&s| self.is_stored(s, evals))
            || self.definitions[t.index()].is_some_and(|d| !keeps_virtual(self.program, self.function, d, evals, false))
    }
}

/// Whether it is a sum of products of so many points that it makes a kernel of register tiles.
fn is_long_sum(program: &Program, function: &Function, d: &Definition) -> bool {
    let Node::Reduce(r) = &*d.clauses[0].body.node else { return false };
    let product = matches!(&*r.body.node, Node::Binary(BinaryOp::Mul, ..));
    r.op == Monoid::Sum && product && points(&program.axes, function, &r.vars) >= LONG
}

/// Pointwise definitions that are larger than all stored tensors they are made of, and made of some.
fn spread_out(program: &Program, function: &Function, forced: &[bool]) -> Vec<bool> {
    let size = |t: TensorId| program.shape(function, t).iter().product::<usize>();
    let mut out = vec![false; function.tensors.len()];
    for stmt in &function.body {
        let Stmt::Define(d) = stmt else { continue };
        let mut reads = Vec::new();
        d.clauses[0].body.visit_reads(&mut |t, _| reads.push(t));
        out[d.tensor.index()] = !forced[d.tensor.index()]
            && !reads.is_empty()
            && !matches!(&*d.clauses[0].body.node, Node::Reduce(_))
            && reads.iter().all(|&t| out[t.index()] || size(t) < size(d.tensor));
    }
    out
}

/// Whether a clause reads every element of a tensor at one of its points, in the order of its own.
fn reads_once(program: &Program, function: &Function, clause: &Clause, tensor: TensorId, at: &[Index]) -> bool {
    let sizes = VarSizes { vars: &function.vars, axes: &program.axes };
    goes_through(at, &program.shape(function, tensor), &clause.vars, &sizes)
}

/// What pointwise definitions can be stored in the place of: of each tensor, the tensors that its definition reads each element of at one point, and that
/// nothing else reads.
fn own_sources(program: &Program, function: &Function, forced: &[bool]) -> Vec<Vec<TensorId>> {
    let mut readers = vec![0usize; function.tensors.len()];
    for stmt in &function.body {
        stmt.reads().iter().for_each(|t| readers[t.index()] += 1);
    }
    let mut out = vec![Vec::new(); function.tensors.len()];
    for stmt in &function.body {
        let Stmt::Define(d) = stmt else { continue };
        let clause = &d.clauses[0];
        if forced[d.tensor.index()] || matches!(&*clause.body.node, Node::Reduce(_)) {
            continue;
        }
        let mut sources: Vec<(TensorId, bool)> = Vec::new();
        clause.body.visit_reads(&mut |s, at| {
            let alone = !forced[s.index()] && readers[s.index()] == 1;
            let once = alone && reads_once(program, function, clause, s, at);
            match sources.iter_mut().find(|(other, _)| *other == s) {
                Some((_, all)) => *all &= once,
                None => sources.push((s, once)),
            }
        });
        out[d.tensor.index()] = sources.into_iter().filter(|&(_, once)| once).map(|(s, _)| s).collect();
    }
    out
}

/// One clause that defines every element at its own variables.
pub fn is_plain(d: &Definition) -> bool {
    d.clauses.len() == 1
        && d.clauses[0].at.iter().zip(&d.clauses[0].vars).all(|(i, v)| i.as_var() == Some(*v))
        && d.clauses[0].at.len() == d.clauses[0].vars.len()
}

/// The tensors that depend on an input of the function, not only on parameters.
pub fn data_dependent(function: &Function) -> Vec<bool> {
    let mut data = vec![false; function.tensors.len()];
    for a in &function.args {
        data[a.tensor.index()] = !matches!(a.role, ArgRole::Param(_) | ArgRole::State(_) | ArgRole::Key);
    }
    for stmt in &function.body {
        let any = stmt.reads().iter().any(|t| data[t.index()]);
        stmt.defines().iter().for_each(|t| data[t.index()] = any);
    }
    data
}

/// A sum of products of two data-dependent tensors, neither of which has all of the result's variables, larger than both.
fn is_interaction(program: &Program, function: &Function, d: &Definition, data: &[bool]) -> bool {
    let clause = &d.clauses[0];
    let Node::Reduce(r) = &*clause.body.node else { return false };
    if r.op != Monoid::Sum {
        return false;
    }
    let mut factors = Vec::new();
    collect_factors(&r.body, &mut factors);
    let size: usize = program.shape(function, d.tensor).iter().product();
    let mut operands = 0;
    let mut largest = 0;
    for f in factors {
        let mut tensors = Vec::new();
        f.visit_reads(&mut |t, _| tensors.push(t));
        if !tensors.iter().any(|t| data[t.index()]) || !r.vars.iter().any(|&v| f.uses(v)) {
            continue;
        }
        if clause.vars.iter().all(|&v| f.uses(v)) {
            return false;
        }
        operands += 1;
        // Of a tensor that holds more than this operand, what is read.
        let read = clause.vars.iter().chain(&r.vars).filter(|&&v| f.uses(v));
        let read: usize = read.map(|&v| program.size(function.var(v).axis)).product();
        let whole = tensors.iter().map(|&t| program.shape(function, t).iter().product()).max().unwrap_or(0);
        largest = largest.max(read.min(whole));
    }
    operands >= 2 && size > largest
}

/// The factors of a product.
pub fn collect_factors<'a>(e: &'a Expr, out: &mut Vec<&'a Expr>) {
    match &*e.node {
        Node::Binary(BinaryOp::Mul, a, b) => {
            collect_factors(a, out);
            collect_factors(b, out);
        }
        _ => out.push(e),
    }
}

fn keeps_virtual(program: &Program, function: &Function, d: &Definition, evals: f64, epilogue: bool) -> bool {
    let body = &d.clauses[0].body;
    let cost = expr_cost(&program.axes, function, body);
    match &*body.node {
        Node::Reduce(r) => {
            (epilogue && evals <= 1.0)
                || (points(&program.axes, function, &r.vars) <= 4 && evals * cost <= cost + 2.0 * evals + 4.0)
        }
        _ => (evals - 1.0) * cost <= 2.0 * evals + 4.0,
    }
}

/// Calls `f(tensor, indices, how often, under a reduction?)` for every read.
fn count_reads(
    program: &Program,
    function: &Function,
    e: &Expr,
    times: f64,
    reduced: bool,
    f: &mut dyn FnMut(TensorId, &[Index], f64, bool),
) {
    match &*e.node {
        Node::Reduce(r) => {
            let inner = times * points(&program.axes, function, &r.vars) as f64;
            r.guard.visit_reads(&mut |t, at| f(t, at, inner, true));
            count_reads(program, function, &r.body, inner, true, f);
        }
        Node::Read { tensor, at, .. } => {
            f(*tensor, at, times, reduced);
            at.iter().for_each(|i| i.visit_reads(&mut |t, at| f(t, at, times, true)));
        }
        Node::Index(i) => i.visit_reads(&mut |t, at| f(t, at, times, true)),
        Node::Random { at, .. } => at.visit_reads(&mut |t, at| f(t, at, times, true)),
        Node::Select(p, ..) | Node::Test(p) => p.visit_reads(&mut |t, at| f(t, at, times, true)),
        _ => {}
    }
    if !matches!(&*e.node, Node::Reduce(_)) {
        e.for_each_child(&mut |c| count_reads(program, function, c, times, reduced, f));
    }
}
