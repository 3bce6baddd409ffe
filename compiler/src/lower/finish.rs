//! The last steps of lowering: every call gets a function with just the results that it uses, what is called once is put in
//! place, and bodies get their normal form.

use std::collections::{HashMap, HashSet};

use crate::ir::rename::spliced;
use crate::ir::{FuncId, Function, Program, Stmt, TensorId, normalise};
use crate::rewrite::{Report, dead};

/// The finished program.
pub(crate) fn finish(program: Program) -> Program {
    let mut out =
        Specialised { source: &program.functions, functions: Vec::new(), known: HashMap::new(), sites: Vec::new() };
    let all = (0..program.entry().results.len()).collect();
    let entry = out.function(program.entry, all);
    let Specialised { functions, sites, .. } = out;
    let mut program = Program { axes: program.axes, functions, entry };
    put_in_place(&mut program, &sites);
    dead::run(&mut program, &mut Report::default());
    normalise::normalise(&mut program);
    program
}

struct Specialised<'a> {
    source: &'a [Function],
    functions: Vec<Function>,
    known: HashMap<(FuncId, Vec<usize>), FuncId>,
    /// How many calls each new function has.
    sites: Vec<usize>,
}

impl Specialised<'_> {
    /// The function with these results only and without what they do not need.
    fn function(&mut self, source: FuncId, results: Vec<usize>) -> FuncId {
        if let Some(known) = self.known.get(&(source, results.clone())) {
            return *known;
        }
        let mut function = self.source[source.index()].clone();
        function.results = results.iter().map(|r| function.results[*r].clone()).collect();
        let mut live: HashSet<TensorId> = function.results.iter().map(|r| r.tensor).collect();
        let mut body = Vec::new();
        for mut stmt in std::mem::take(&mut function.body).into_iter().rev() {
            if !stmt.defines().iter().any(|t| live.contains(t)) {
                continue;
            }
            live.extend(stmt.reads());
            if let Stmt::Call(call) = &mut stmt {
                let used: Vec<usize> = (0..call.results.len()).filter(|r| live.contains(&call.results[*r])).collect();
                call.results = used.iter().map(|r| call.results[*r]).collect();
                call.function = self.function(call.function, used);
                self.sites[call.function.index()] += 1;
            }
            body.push(stmt);
        }
        body.reverse();
        function.body = body;
        let id = FuncId(self.functions.len() as u32);
        let same = self.known.keys().filter(|(f, _)| *f == source).count();
        if same > 0 {
            function.name = format!("{}'{}", function.name, same + 1);
        }
        self.functions.push(function);
        self.sites.push(0);
        self.known.insert((source, results), id);
        id
    }
}

/// Replaces the calls of functions that are called once.
fn put_in_place(program: &mut Program, sites: &[usize]) {
    for caller in 0..program.functions.len() {
        let body = std::mem::take(&mut program.functions[caller].body);
        let mut out = Vec::with_capacity(body.len());
        for stmt in body {
            match stmt {
                Stmt::Call(call) if sites[call.function.index()] == 1 => {
                    // Callees come before callers, so the callee's own calls are in place.
                    let (callees, callers) = program.functions.split_at_mut(caller);
                    out.extend(spliced(&mut callers[0], &callees[call.function.index()], &call));
                }
                other => out.push(other),
            }
        }
        program.functions[caller].body = out;
    }
}
