//! From functions to one flat list of launches: calls are expanded, tensors become buffers, equal kernels are kept once.

use super::{BufferRole, FunctionPlan, GraphBuffer, KernelGraph, Launch, PlanStep};
use crate::ir::{FuncId, Program, ResultRole, TensorId};
use crate::loops::Kernel;
use std::collections::HashMap;

/// A graph under construction.
pub struct Builder<'a> {
    program: &'a Program,
    graph: KernelGraph,
    known: HashMap<Kernel, usize>,
}

impl<'a> Builder<'a> {
    /// An empty graph for so many threads.
    pub fn new(program: &'a Program, threads: usize) -> Builder<'a> {
        let (buffers, kernels, launches, decisions) = Default::default();
        let graph = KernelGraph { buffers, kernels, launches, threads, decisions };
        Builder { program, graph, known: HashMap::new() }
    }

    /// Expands the entry function: its arguments and results are the graph's.
    pub fn run_entry(&mut self, parts: &[FunctionPlan]) {
        let entry = self.program.entry;
        let plan = &parts[entry.index()];
        let mut buffers = HashMap::new();
        for a in &plan.function.args {
            let role = BufferRole::Arg(a.role.clone());
            buffers.insert(a.tensor, self.buffer(plan, a.tensor, role));
        }
        let mut results: HashMap<TensorId, Vec<ResultRole>> = HashMap::new();
        for r in &plan.function.results {
            results.entry(r.tensor).or_default().push(r.role.clone());
        }
        for r in &plan.function.results {
            buffers.entry(r.tensor).or_insert_with(|| {
                let roles = results[&r.tensor].clone();
                self.buffer(plan, r.tensor, BufferRole::Result(roles))
            });
        }
        self.run(entry, parts, buffers, "");
    }

    /// The finished graph.
    pub fn finish(mut self, parts: Vec<FunctionPlan>) -> KernelGraph {
        self.graph.decisions = parts.into_iter().flat_map(|p| p.decisions).collect();
        self.graph
    }

    fn buffer(&mut self, plan: &FunctionPlan, tensor: TensorId, role: BufferRole) -> usize {
        let t = plan.function.tensor(tensor);
        let shape = t.dims.iter().map(|d| plan.axes[d.index()].size).collect();
        self.graph.buffers.push(GraphBuffer {
            name: t.name.clone(),
            elem: super::emit::stored_elem(t.elem),
            shape,
            role,
        });
        self.graph.buffers.len() - 1
    }

    fn run(&mut self, function: FuncId, parts: &[FunctionPlan], mut buffers: HashMap<TensorId, usize>, site: &str) {
        let plan = &parts[function.index()];
        for step in &plan.steps {
            match step {
                PlanStep::Launch { kernel, tensors, site: what, unit } => {
                    let args = tensors.iter().map(|&t| self.buffer_of(plan, t, &mut buffers)).collect();
                    let kernel = self.kernel(kernel);
                    let site = if site.is_empty() { what.clone() } else { format!("{site}: {what}") };
                    let chosen = plan.chosen.get(*unit).copied();
                    self.graph.launches.push(Launch { kernel, buffers: args, site, chosen });
                }
                PlanStep::Call(c) => {
                    let callee = &parts[c.function.index()].function;
                    let mut inner = HashMap::new();
                    for (a, &t) in callee.args.iter().zip(&c.args) {
                        inner.insert(a.tensor, self.buffer_of(plan, t, &mut buffers));
                    }
                    for (r, &t) in callee.results.iter().zip(&c.results) {
                        // A tensor that is a result twice, or an argument too, is one buffer for both names.
                        match inner.get(&r.tensor) {
                            Some(&b) => {
                                buffers.insert(t, b);
                            }
                            None => {
                                let b = self.buffer_of(plan, t, &mut buffers);
                                inner.insert(r.tensor, b);
                            }
                        }
                    }
                    let site = if site.is_empty() { c.site.clone() } else { format!("{site}.{}", c.site) };
                    self.run(c.function, parts, inner, &site);
                }
            }
        }
    }

    fn buffer_of(&mut self, plan: &FunctionPlan, tensor: TensorId, buffers: &mut HashMap<TensorId, usize>) -> usize {
        match buffers.get(&tensor) {
            Some(&b) => b,
            None => {
                let b = self.buffer(plan, tensor, BufferRole::Temporary);
                buffers.insert(tensor, b);
                b
            }
        }
    }

    /// The kernel's number; names do not make kernels differ.
    fn kernel(&mut self, kernel: &Kernel) -> usize {
        let nameless = kernel.nameless();
        match self.known.get(&nameless) {
            Some(&k) => k,
            None => {
                self.graph.kernels.push(kernel.clone());
                self.known.insert(nameless, self.graph.kernels.len() - 1);
                self.graph.kernels.len() - 1
            }
        }
    }
}
