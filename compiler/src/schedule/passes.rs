//! Definitions of elements side by side: no sums, and nothing is read but what lies next to one another or is the same for neighbours.
//!
//! Such a definition takes as long as its memory takes. Several that go over the same elements, and read something in common or one another, go over it once
//! (the moments of an optimizer and what they update).

use super::along::has_reduce;
use super::expand::View;
use super::loads::loads;
use crate::ir::index::Sizes;
use crate::ir::{Clause, Definition, Expr, Index, TensorId, VarId};
use std::collections::HashMap;

/// Tensors that a pass reads and writes at most: each is a stream that the processor has to keep track of.
const STREAMS: usize = 12;

/// What is to be known of a definition of elements.
pub struct Element {
    tensor: TensorId,
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
}

/// The definition as one of elements, if it is one.
pub fn element(view: &mut View<'_>, d: &Definition) -> Option<Element> {
    let [clause] = &d.clauses[..] else { return None };
    let body = view.expand(&clause.body, &mut |_, _, _| None);
    let &last = clause.vars.last()?;
    let identity: Vec<Index> = clause.vars.iter().map(|&v| v.into()).collect();
    let reads = loads(view, &body);
    let near = reads.iter().all(|l| !l.uses(last) || l.runs_along(last));
    if has_reduce(&body) || clause.at != identity || !near {
        return None;
    }
    let (own, elsewhere): (Vec<_>, Vec<_>) = reads.iter().partition(|l| l.at == identity);
    let tensors = |reads: Vec<&super::loads::Load>| reads.iter().map(|l| l.tensor).collect();
    let sizes = clause.vars.iter().map(|&v| view.size_of(v)).collect();
    Some(Element { tensor: d.tensor, sizes, own: tensors(own), elsewhere: tensors(elsewhere) })
}

impl Pass {
    /// Of one definition.
    pub fn new(element: Element, statement: usize, unit: usize) -> Pass {
        let Element { tensor, sizes, own, .. } = element;
        Pass { statements: vec![statement], unit, sizes, defined: vec![tensor], read: own }
    }

    /// Whether a definition may join.
    pub fn takes(&self, element: &Element) -> bool {
        let among = |all: &[TensorId], t: &TensorId| all.contains(t);
        let shares = element.own.iter().any(|t| among(&self.defined, t) || among(&self.read, t));
        let new = element.own.iter().filter(|t| !among(&self.defined, t) && !among(&self.read, t)).count();
        let early = element.elsewhere.iter().any(|t| among(&self.defined, t));
        let streams = self.read.len() + self.defined.len() + new + 1;
        self.sizes == element.sizes && shares && !early && streams <= STREAMS
    }

    /// Takes it.
    pub fn add(&mut self, element: &Element, statement: usize) {
        self.statements.push(statement);
        for t in &element.own {
            if !self.read.contains(t) && !self.defined.contains(t) {
                self.read.push(*t);
            }
        }
        self.defined.push(element.tensor);
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
}

/// The members of a pass.
pub fn members(view: &mut View<'_>, definitions: &[&Definition]) -> Vec<Member> {
    let vars = definitions[0].clauses[0].vars.clone();
    let at: Vec<Index> = vars.iter().map(|&v| v.into()).collect();
    let mut known: HashMap<TensorId, Expr> = HashMap::new();
    let mut out = Vec::new();
    for d in definitions {
        let clause = &d.clauses[0];
        let map: HashMap<VarId, Index> = clause.vars.iter().copied().zip(at.iter().cloned()).collect();
        let body = clause.body.subst_vars(&|v| map.get(&v).cloned(), view);
        let body = view.expand(&body, &mut |_, tensor, _| known.get(&tensor).cloned());
        let elem = view.elem(d.tensor);
        let held = view.function.new_tensor("held", elem, Vec::new(), None);
        known.insert(d.tensor, Expr::read(elem, held, Vec::new()));
        out.push(Member { tensor: d.tensor, clause: Clause { vars: vars.clone(), at: at.clone(), body }, held });
    }
    out
}
