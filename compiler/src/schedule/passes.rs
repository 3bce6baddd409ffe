//! Definitions of elements side by side: nothing is read but what lies next to one another or is the same for neighbours, and nothing is summed but the
//! few points of a window, by the first one.
//!
//! Such a definition takes as long as its memory takes. Several that go over the same elements, and read something in common or one another, go over it once
//! (the moments of an optimizer and what they update; a depthwise convolution, its activation and the activation's derivative). What nothing else reads is
//! not stored.

use super::along::{collect_reductions, has_reduce};
use super::expand::View;
use super::loads::{Load, lane_cost, loads};
use crate::ir::index::Sizes;
use crate::ir::{Clause, Definition, Expr, Index, Reduction, TensorId, VarId};
use std::collections::HashMap;

/// Tensors that a pass reads and writes at most: each is a stream that the processor has to keep track of.
const STREAMS: usize = 12;

/// How many times larger a result is than what is copied for it.
const SMALL: usize = 64;
/// Points of a sum that is computed by the way at most.
const WINDOW: usize = 16;

/// What is to be known of a definition of elements.
pub struct Element {
    tensor: TensorId,
    /// Whether something is summed.
    sums: bool,
    sizes: Vec<i64>,
    /// The stored tensors that it reads at its own elements.
    own: Vec<TensorId>,
    /// Those that it reads elsewhere too.
    elsewhere: Vec<TensorId>,
}

/// Definitions that may be one pass.
pub struct Pass {
    /// Their statements.
    pub statements: Vec<usize>,
    /// The unit that they are.
    pub unit: usize,
    sizes: Vec<i64>,
    defined: Vec<TensorId>,
    read: Vec<TensorId>,
    /// How many tensors are read elsewhere than at the pass's own elements.
    elsewhere: usize,
}

/// The definition as one of elements, if it is one.
pub fn element(view: &mut View<'_>, d: &Definition) -> Option<Element> {
    let [clause] = &d.clauses[..] else { return None };
    let body = view.expand(&clause.body, &mut |_, _, _| None);
    let &last = clause.vars.last()?;
    let identity: Vec<Index> = clause.vars.iter().map(|&v| v.into()).collect();
    let reads = loads(view, &body);
    let mut reductions = Vec::new();
    collect_reductions(&body, &mut reductions);
    let points = |r: &Reduction| r.vars.iter().map(|&v| view.size_of(v) as usize).product::<usize>();
    let sums = !reductions.is_empty();
    if reductions.iter().any(|r| points(r) > WINDOW || has_reduce(&r.body)) {
        return None;
    }
    // The weights of a window can be copied to where neighbours find them side by side.
    let small = |l: &Load| {
        let size = view.shape(l.tensor).iter().product::<usize>();
        sums && lane_cost(l, last).1 && size * SMALL <= view.shape(d.tensor).iter().product()
    };
    let near = reads.iter().all(|l| !l.uses(last) || l.runs_along(last) || small(l));
    if clause.at != identity || !near {
        return None;
    }
    let (own, elsewhere): (Vec<_>, Vec<_>) = reads.iter().partition(|l| l.at == identity);
    let tensors = |reads: Vec<&Load>| {
        let mut tensors: Vec<TensorId> = reads.iter().map(|l| l.tensor).collect();
        tensors.sort_unstable();
        tensors.dedup();
        tensors
    };
    let sizes = clause.vars.iter().map(|&v| view.size_of(v)).collect();
    Some(Element { tensor: d.tensor, sums, sizes, own: tensors(own), elsewhere: tensors(elsewhere) })
}

impl Pass {
    /// Of one definition.
    pub fn new(element: Element, statement: usize, unit: usize) -> Pass {
        let Element { tensor, sizes, own, elsewhere, .. } = element;
        Pass { statements: vec![statement], unit, sizes, defined: vec![tensor], read: own, elsewhere: elsewhere.len() }
    }

    /// Whether a definition may join, with that many tensors in all at most.
    pub fn takes(&self, element: &Element, most: usize) -> bool {
        let shared = element.own.iter().filter(|t| self.has(**t)).count();
        let early = element.elsewhere.iter().any(|t| self.defined.contains(t));
        let streams = self.read.len() + self.defined.len() + element.own.len() - shared + 1;
        let tensors = streams + self.elsewhere + element.elsewhere.len();
        let fits = self.sizes == element.sizes && !element.sums;
        fits && shared > 0 && !early && streams <= STREAMS && tensors <= most
    }

    /// Takes it.
    pub fn add(&mut self, element: &Element, statement: usize) {
        self.statements.push(statement);
        let new: Vec<TensorId> = element.own.iter().copied().filter(|&t| !self.has(t)).collect();
        self.read.extend(new);
        self.defined.push(element.tensor);
        self.elsewhere += element.elsewhere.len();
    }

    fn has(&self, t: TensorId) -> bool {
        self.defined.contains(&t) || self.read.contains(&t)
    }
}

/// A definition in a pass.
pub struct Member {
    /// What it defines.
    pub tensor: TensorId,
    /// How, over the variables of the first one.
    pub clause: Clause,
    /// What stands for its value at the element in those after it.
    pub held: TensorId,
    /// Whether it is a result, or anything else reads it.
    pub stored: bool,
}

/// The members of a pass; with each definition, whether it is a result or read elsewhere.
pub fn members(view: &mut View<'_>, definitions: &[(&Definition, bool)]) -> Vec<Member> {
    let vars = definitions[0].0.clauses[0].vars.clone();
    let at: Vec<Index> = vars.iter().map(|&v| v.into()).collect();
    let mut known: HashMap<TensorId, Expr> = HashMap::new();
    let mut out = Vec::new();
    for &(d, stored) in definitions {
        let clause = &d.clauses[0];
        let map: HashMap<VarId, Index> = clause.vars.iter().copied().zip(at.iter().cloned()).collect();
        let body = clause.body.subst_vars(&|v| map.get(&v).cloned(), view);
        let body = view.expand(&body, &mut |_, tensor, _| known.get(&tensor).cloned());
        let elem = view.elem(d.tensor);
        let held = view.function.new_tensor("held", elem, Vec::new(), None);
        known.insert(d.tensor, Expr::read(elem, held, Vec::new()));
        out.push(Member {
            tensor: d.tensor,
            clause: Clause { vars: vars.clone(), at: at.clone(), body },
            held,
            stored,
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{ArgRole, Elem, ResultRole, UnaryOp};
    use crate::loops::in_place::in_place;
    use crate::schedule::{BufferRole, Facts, KernelGraph, schedule};
    use crate::testing::{Make, arguments, check_schedule, rd};

    fn scheduled(program: &crate::ir::Program) -> KernelGraph {
        check_schedule(program, &arguments(program));
        schedule(program, &Facts { lanes: 16, local_bytes: 49152, ..Facts::USUAL })
    }

    /// A moment and what it updates.
    fn update(n: usize) -> crate::ir::Program {
        let mut m = Make::new();
        let (p, g, v) = (m.input("p", &[n]), m.input("g", &[n]), m.input("v", &[n]));
        let [i, j] = [m.var(n), m.var(n)];
        let half = |e| Expr::mul(e, Expr::constant(Elem::F32, 0.5));
        let next = m.def("v2", &[i], Expr::add(half(rd(v, &[i])), half(rd(g, &[i]))));
        let p2 = m.def("p2", &[j], Expr::sub(rd(p, &[j]), rd(next, &[j])));
        m.result(next);
        m.result(p2);
        m.program()
    }

    #[test]
    fn an_update_is_one_pass_whatever_its_size() {
        for n in [1, 3, 17, 64, 1000] {
            assert_eq!(scheduled(&update(n)).launches.len(), 1);
        }
    }

    #[test]
    fn each_result_may_replace_what_it_is_made_of() {
        let graph = scheduled(&update(1024));
        let buffer = |b: usize| &graph.buffers[graph.launches[0].buffers[b]].role;
        let name = |role: &BufferRole| match role {
            BufferRole::Arg(ArgRole::Input(name)) => name.clone(),
            BufferRole::Result(roles) => match &roles[0] {
                ResultRole::Output(name) => name.clone(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        let pairs = in_place(&graph.kernels[0]);
        let pairs: Vec<(String, String)> =
            (pairs.iter()).map(|p| (name(buffer(p.read.0 as usize)), name(buffer(p.written.0 as usize)))).collect();
        for (from, to) in [("v", "v2"), ("p", "p2")] {
            assert!(pairs.contains(&(from.to_owned(), to.to_owned())), "{pairs:?}");
        }
    }

    /// A depthwise convolution, what is made of it, and of that with something else.
    fn window(n: usize, c: usize, kept: bool) -> crate::ir::Program {
        let mut m = Make::new();
        let (x, g, w) = (m.input("x", &[n, c]), m.input("g", &[n, c]), m.input("w", &[c, 3]));
        let [i, j, u] = [m.var(n), m.var(c), m.var(3)];
        let beside = vec![Index::from(i).add(&u.into()).plus(-1), j.into()];
        let body = Expr::mul(rd(w, &[j, u]), Expr::read_or_zero(Elem::F32, x, beside));
        let z = m.def("z", &[i, j], Expr::sum(vec![u], crate::ir::Pred::True, body));
        let [i, j] = [m.var(n), m.var(c)];
        let h = m.def("h", &[i, j], Expr::unary(UnaryOp::Exp, rd(z, &[i, j])));
        let [i, j] = [m.var(n), m.var(c)];
        let d = m.def("d", &[i, j], Expr::mul(rd(g, &[i, j]), Expr::unary(UnaryOp::Tanh, rd(z, &[i, j]))));
        [h, d].into_iter().for_each(|t| m.result(t));
        if kept {
            m.result(z);
        }
        m.program()
    }

    #[test]
    fn a_window_and_what_is_made_of_it_are_one_pass() {
        for (n, c) in [(211, 16), (7, 96), (199, 40), (3, 128), (1, 17), (193, 1)] {
            for kept in [false, true] {
                let graph = scheduled(&window(n, c, kept));
                let writes = |name: &str| {
                    let written = |k: &crate::loops::Kernel| k.buffers.iter().any(|b| b.written && b.name == name);
                    graph.launches.iter().filter(|l| written(&graph.kernels[l.kernel])).count()
                };
                assert_eq!((writes("h"), writes("d")), (1, 1));
                // The weights are little beside the results.
                if n > 192 && c >= 16 {
                    let last = &graph.kernels[graph.launches.last().expect("a launch").kernel];
                    assert_eq!(last.buffers.iter().filter(|b| b.written).count(), if kept { 3 } else { 2 });
                    assert_eq!(writes("z"), usize::from(kept), "{n} x {c}");
                }
            }
        }
    }

    #[test]
    fn what_reads_neighbours_of_a_member_waits_for_it() {
        let (n, c) = (9, 16);
        let mut m = Make::new();
        let x = m.input("x", &[n, c]);
        let [i, j, k, l] = [n, c, n, c].map(|size| m.var(size));
        let a = m.def("a", &[i, j], Expr::unary(UnaryOp::Exp, rd(x, &[i, j])));
        let above = Expr::read_or_zero(Elem::F32, a, vec![Index::from(k).plus(-1), l.into()]);
        let b = m.def("b", &[k, l], Expr::add(above, rd(x, &[k, l])));
        m.result(a);
        m.result(b);
        assert_eq!(scheduled(&m.program()).launches.len(), 2);
    }

    #[test]
    fn what_is_between_two_definitions_keeps_them_apart() {
        let (n, c) = (12, 32);
        let mut m = Make::new();
        let x = m.input("x", &[n, c]);
        let vars = |m: &mut Make| (m.var(n), m.var(c));
        let (i, j) = vars(&mut m);
        let a = m.def("a", &[i, j], Expr::unary(UnaryOp::Exp, rd(x, &[i, j])));
        let (i, j) = vars(&mut m);
        let total = m.def("total", &[j], Expr::sum(vec![i], crate::ir::Pred::True, rd(a, &[i, j])));
        let (i, j) = vars(&mut m);
        let b = m.def("b", &[i, j], Expr::mul(rd(x, &[i, j]), rd(total, &[j])));
        [a, total, b].into_iter().for_each(|t| m.result(t));
        let graph = scheduled(&m.program());
        let written = |n: usize| {
            let launch = &graph.launches[n];
            graph.kernels[launch.kernel]
                .buffers
                .iter()
                .filter(|b| b.written)
                .map(|b| b.name.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(written(0), ["a"]);
    }
}
