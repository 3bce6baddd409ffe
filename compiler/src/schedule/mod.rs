//! From the index IR to a graph of kernels: what is stored, what is fused, and the loop nest of each kernel.

mod along;
mod assume;
mod blocks;
mod columns;
mod components;
mod copies;
mod cost;
mod decisions;
mod emit;
mod expand;
mod graph;
mod groups;
pub mod host;
mod join;
mod keyed;
mod lanes;
mod loads;
mod panel;
mod passes;
mod phases;
mod places;
mod rows;
mod share;
mod soon;
mod split;
mod stages;
mod steps;
mod storage;
mod strips;
mod sweep;
#[cfg(test)]
mod tests;
mod tile;
mod turn;
pub mod variants;

use crate::check::elaborator::MAX_ELEMENTS;
use crate::ir::{
    ArgRole, Axis, Call, Clause, Definition, Elem, Expr, Function, Index, Keep, Program, ResultRole, Stmt, TensorId,
    VarId,
};
use crate::loops::Kernel;
use crate::loops::digest::Digest;
use crate::loops::neighbours::join_loads;
use decisions::How;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use variants::{Choices, Chosen, Variant};

pub use decisions::Decision;

/// What a schedule may use of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Lanes of a float vector (a power of two; 1 for none).
    pub lanes: usize,
    /// Units that run at the same time; fewer work items than these leave some idle.
    pub units: usize,
    /// Bytes of private memory a work item may use.
    pub local_bytes: usize,
    /// Vector registers that a register tile may fill.
    pub registers: usize,
    /// Tensors that a kernel of several definitions may read and write.
    pub tensors: usize,
    /// Whether neighbouring work items do the same at the same time, as on graphics processors: what lies side by side is then best read and written
    /// by items side by side.
    pub lockstep: bool,
    /// Elements that a tensor of all pairs may have and still have memory. Rows of pairs that have none are a work item each or a vector of them, so
    /// that a device with many units does better to write the pairs, and go on with register tiles of them; 0 where there are few units.
    pub pairs: usize,
}

impl Facts {
    /// Those of a usual processor of two cores, vectors of 8 and no limit on tensors.
    pub const USUAL: Facts = Facts {
        lanes: 8,
        units: 2,
        local_bytes: 64 << 10,
        registers: 28,
        tensors: usize::MAX,
        lockstep: false,
        pairs: 0,
    };

    /// Whether private memory is so large that it is a part of a fast cache, in which local arrays pay.
    fn has_near_memory(&self) -> bool {
        self.local_bytes >= 32 << 10
    }
}

/// A program as kernels and launches.
#[derive(Clone, Debug)]
pub struct KernelGraph {
    /// All device buffers.
    pub buffers: Vec<GraphBuffer>,
    /// The distinct kernels.
    pub kernels: Vec<Kernel>,
    /// What to run, in order.
    pub launches: Vec<Launch>,
    /// Threads that begin with the same part of every kernel's items, the first with the first: each best finds its part of a tensor where its part of
    /// others was before. 1 where there are none such, and where less memory is worth more than that.
    pub threads: usize,
    /// What was decided about memory, function by function.
    pub decisions: Vec<Decision>,
}

/// A device buffer of a graph.
#[derive(Clone, Debug)]
pub struct GraphBuffer {
    /// For people.
    pub name: String,
    /// Element type (bool is stored as u32).
    pub elem: Elem,
    /// Dimensions, row-major.
    pub shape: Vec<usize>,
    /// Where it comes from and goes to.
    pub role: BufferRole,
}

/// What a buffer is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BufferRole {
    /// An argument of the entry function.
    Arg(ArgRole),
    /// One or more results of the entry function.
    Result(Vec<ResultRole>),
    /// Only lives inside the graph.
    Temporary,
}

/// One kernel launch.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Which kernel.
    pub kernel: usize,
    /// Its buffers, in the kernel's order, as indices into the graph's.
    pub buffers: Vec<usize>,
    /// For people: what it computes, and where in the model.
    pub site: String,
    /// The unit that it belongs to, where there was a choice to make.
    pub chosen: Option<Chosen>,
}

/// Schedules a program for a device.
pub fn schedule(program: &Program, facts: &Facts) -> KernelGraph {
    schedule_as(program, facts, None)
}

/// Schedules a program for a device with the variants that were chosen for its units; the launches say which unit they belong to.
pub fn schedule_chosen(program: &Program, facts: &Facts, choices: &Choices) -> KernelGraph {
    schedule_as(program, facts, Some(choices))
}

fn schedule_as(program: &Program, facts: &Facts, choices: Option<&Choices>) -> KernelGraph {
    let mut program = own_results(program);
    phases::split_phases(&mut program);
    split::split_long_reductions(&mut program, facts);
    let program = &program;
    let threads = if facts.lockstep { 1 } else { facts.units };
    let mut graph = graph::Builder::new(program, threads);
    let parts: Vec<FunctionPlan> =
        program.functions.iter().map(|f| plan_function(program, f, facts, choices)).collect();
    graph.run_entry(&parts);
    graph.finish(parts)
}

/// A tensor that would have memory on a device with more elements than a buffer may have, in words.
pub fn too_large(program: &Program, facts: &Facts) -> Option<String> {
    let mut program = own_results(program);
    split::split_long_reductions(&mut program, facts);
    for f in &program.functions {
        let storage = storage::decide(&program, f, false, facts.pairs);
        let args = f.args.iter().map(|a| a.tensor);
        let defined = f.body.iter().flat_map(Stmt::defines).filter(|t| storage.stored[t.index()]);
        for t in args.chain(defined) {
            let shape = program.shape(f, t);
            let elements: f64 = shape.iter().map(|&n| n as f64).product();
            if elements > MAX_ELEMENTS as f64 {
                return Some(format!(
                    "`{}.{}` of shape {shape:?} would be stored, and has more than {MAX_ELEMENTS} elements: make a size or the batch \
                     smaller (`explain` tells of smaller sizes what is stored, and why)",
                    f.name,
                    f.tensor(t).name
                ));
            }
        }
    }
    None
}

/// The program with a copy wherever a result of a function is one of its arguments, so that every result has memory of its own.
fn own_results(program: &Program) -> Program {
    let mut out = program.clone();
    for f in &mut out.functions {
        for n in 0..f.results.len() {
            let t = f.results[n].tensor;
            if !f.args.iter().any(|a| a.tensor == t) {
                continue;
            }
            let source = f.tensor(t).clone();
            let vars: Vec<VarId> = source.dims.iter().map(|&d| f.new_var("copy", d)).collect();
            let at: Vec<Index> = vars.iter().map(|&v| v.into()).collect();
            let copy = f.new_tensor(source.name.clone(), source.elem, source.dims.clone(), source.span);
            let body = Expr::read(source.elem, t, at.clone());
            f.body.push(Stmt::Define(Definition {
                tensor: copy,
                clauses: vec![Clause { vars, at, body }],
                keep: Keep::Auto,
            }));
            f.results[n].tensor = copy;
        }
    }
    out
}

/// The kernels of one function, over its own tensors.
pub struct FunctionPlan {
    /// The function with the tensors that scheduling added.
    pub function: Function,
    /// Axes, with those that scheduling added.
    pub axes: Vec<Axis>,
    /// What to do, in order.
    pub steps: Vec<PlanStep>,
    /// What was decided about memory.
    pub decisions: Vec<Decision>,
    /// The units with their variants, if there was a choice to make.
    pub chosen: Vec<Chosen>,
}

/// A step of a function.
pub enum PlanStep {
    /// Launches a kernel on tensors of the function.
    Launch {
        /// The kernel.
        kernel: Kernel,
        /// Its buffers.
        tensors: Vec<TensorId>,
        /// What it computes.
        site: String,
        /// The number of the unit that it belongs to.
        unit: usize,
    },
    /// Runs another function.
    Call(Call),
}

/// A function being scheduled.
pub(crate) struct Planner<'a> {
    view: expand::View<'a>,
    /// What the unit under way may use.
    facts: Facts,
    /// The number of the unit under way.
    unit: usize,
    steps: Vec<PlanStep>,
    copies: HashMap<(TensorId, usize), TensorId>,
    decisions: Vec<Decision>,
}

impl Planner<'_> {
    fn launch(&mut self, kernel: Kernel, tensors: Vec<TensorId>, site: &str) {
        let kernel = if self.facts.lockstep { join_loads(kernel, self.facts.lanes as u8) } else { kernel };
        self.steps.push(PlanStep::Launch { kernel, tensors, site: site.to_owned(), unit: self.unit });
    }

    /// The definition of that statement by itself.
    fn tiles(&mut self, function: &Function, n: usize) {
        let Stmt::Define(d) = &function.body[n] else { return };
        let name = self.view.name(d.tensor);
        // Before the kernel: afterwards the function has more variables than it was written with.
        let clauses: Vec<_> = d.clauses.iter().map(|c| (d.tensor, c.clone())).collect();
        let decision = decisions::of_kernel(&mut self.view, &clauses, How::Elements);
        self.decisions.extend(decision);
        for clause in &d.clauses {
            tile::schedule(self, d.tensor, clause, &name);
        }
    }

    /// Plans a unit.
    fn unit(&mut self, function: &Function, unit: groups::Unit) {
        match unit {
            groups::Unit::Rows(members) => {
                let plain = members.iter().filter(|m| m.sum.is_none());
                let clauses: Vec<_> = plain.map(|m| (m.tensor, m.clause.clone())).collect();
                self.decisions.extend(decisions::of_kernel(&mut self.view, &clauses, How::Rows));
                for m in members.iter().filter(|m| m.sum.is_some()) {
                    let clauses = function.definition(m.tensor).map(|d| (m.tensor, d.clauses[0].clone()));
                    let clauses: Vec<_> = clauses.into_iter().collect();
                    self.decisions.extend(decisions::of_kernel(&mut self.view, &clauses, How::Key));
                }
                let names: Vec<String> = members.iter().map(|m| self.view.name(m.tensor)).collect();
                rows::schedule(self, &members, &names.join(", "));
            }
            groups::Unit::Row(member, n) => {
                let name = self.view.name(member.tensor);
                let members = [member];
                match along::width(&mut self.view, &self.facts, &members) {
                    Some(_) => rows::schedule(self, &members, &name),
                    // With a row in every lane a register tile is better.
                    None => self.tiles(function, n),
                }
            }
            groups::Unit::Columns(numbers) => {
                let definition = |&n: &usize| match &function.body[n] {
                    Stmt::Define(d) => Some(d),
                    _ => None,
                };
                let defined: Vec<&Definition> = numbers.iter().filter_map(definition).collect();
                for d in &defined {
                    let clauses = [(d.tensor, d.clauses[0].clone())];
                    self.decisions.extend(decisions::of_kernel(&mut self.view, &clauses, How::Elements));
                }
                let names: Vec<String> = defined.iter().map(|d| self.view.name(d.tensor)).collect();
                columns::schedule_together(self, &defined, &names.join(", "));
            }
            groups::Unit::Pass(numbers) => {
                let definition = |&(n, stored): &(usize, bool)| match &function.body[n] {
                    Stmt::Define(d) => Some((d, stored)),
                    _ => None,
                };
                let defined: Vec<(&Definition, bool)> = numbers.iter().filter_map(definition).collect();
                let names: Vec<String> = defined.iter().map(|(d, _)| self.view.name(d.tensor)).collect();
                let members = passes::members(&mut self.view, &defined);
                tile::schedule_together(self, members, &names.join(", "));
            }
            groups::Unit::Single(n) => match function.body[n].clone() {
                Stmt::Define(d) if self.view.is_of_parts(d.tensor) => {}
                Stmt::Define(_) => self.tiles(function, n),
                Stmt::Call(c) => self.steps.push(PlanStep::Call(c)),
                Stmt::Components(c) => {
                    let (kernel, tensors) = components::kernel(&self.view, &c);
                    let name = self.view.name(c.labels);
                    self.launch(kernel, tensors, &name);
                }
            },
        }
    }

    /// A copy of a stored tensor with one dimension moved to the end.
    fn permuted(&mut self, tensor: TensorId, dim: usize, site: &str) -> TensorId {
        if let Some(&t) = self.copies.get(&(tensor, dim)) {
            return t;
        }
        let d = copies::permutation(&mut self.view, tensor, dim);
        self.copies.insert((tensor, dim), d.tensor);
        tile::schedule(self, d.tensor, &d.clauses[0], site);
        d.tensor
    }
}

/// Plans a function; with choices, twice. Units are known by their kernels under the default, and what a unit is given depends on those before
/// it (copies are shared), so that the default comes first and whole, and the choices begin from nothing again.
fn plan_function(program: &Program, function: &Function, facts: &Facts, choices: Option<&Choices>) -> FunctionPlan {
    let storage = storage::decide(program, function, facts.has_near_memory(), facts.pairs);
    let default = plan_units(program, function, facts, &storage, &[]);
    let Some(choices) = choices else { return default };
    let chosen: Vec<Chosen> =
        keys(&default).into_iter().map(|unit| Chosen { unit, variant: choices.of(unit) }).collect();
    let planned = if chosen.iter().all(|c| c.variant == Variant::Default) {
        default
    } else {
        plan_units(program, function, facts, &storage, &chosen)
    };
    FunctionPlan { chosen, ..planned }
}

/// The digest of the kernels of every unit of a plan.
fn keys(plan: &FunctionPlan) -> Vec<Digest> {
    let mut kernels: Vec<Vec<&Kernel>> = Vec::new();
    for step in &plan.steps {
        if let PlanStep::Launch { kernel, unit, .. } = step {
            kernels.resize_with(kernels.len().max(unit + 1), Vec::new);
            kernels[*unit].push(kernel);
        }
    }
    kernels.into_iter().map(Digest::of_kernels).collect()
}

/// Plans a function with the variants of its units; the default for those that are not given. Which definitions make a unit does not depend on the
/// variants.
fn plan_units(
    program: &Program,
    function: &Function,
    facts: &Facts,
    storage: &storage::Storage,
    chosen: &[Chosen],
) -> FunctionPlan {
    let mut p = Planner {
        view: expand::View::new(program, function, storage),
        facts: facts.clone(),
        unit: 0,
        steps: Vec::new(),
        copies: HashMap::new(),
        decisions: Vec::new(),
    };
    decisions::stored(&mut p.view, storage, function, &mut p.decisions);
    for (n, unit) in groups::group(&mut p.view, facts).into_iter().enumerate() {
        p.unit = n;
        p.facts = chosen.get(n).map_or(Variant::Default, |c| c.variant).facts(facts);
        p.unit(function, unit);
    }
    let Planner { view, steps, decisions, .. } = p;
    FunctionPlan { function: view.function, axes: view.axes, steps, decisions, chosen: Vec::new() }
}
