//! What nothing reads goes: definitions, calls, and the results and arguments of callees that no caller uses.

use super::Report;
use crate::ir::{FuncId, Program, Stmt, TensorId};
use std::collections::{HashMap, HashSet};

/// The pass.
pub fn run(program: &mut Program, report: &mut Report) {
    // Callers come after callees: from the entry down, each function knows which of its results are wanted.
    for caller in (0..program.functions.len()).rev() {
        sweep(program, caller, report);
        narrow_callees(program, caller);
    }
    drop_uncalled(program);
    drop_arguments(program);
}

/// Removes unused statements of one function.
fn sweep(program: &mut Program, f: usize, report: &mut Report) {
    let function = &mut program.functions[f];
    let mut live: HashSet<TensorId> = function.results.iter().map(|r| r.tensor).collect();
    let mut keep = vec![false; function.body.len()];
    for (n, s) in function.body.iter().enumerate().rev() {
        if s.defines().iter().any(|t| live.contains(t)) {
            keep[n] = true;
            live.extend(s.reads());
        }
    }
    let mut kept = keep.iter();
    let removed: Vec<String> = function
        .body
        .iter()
        .zip(&keep)
        .filter(|(_, k)| !**k)
        .flat_map(|(s, _)| s.defines())
        .map(|t| function.tensors[t.index()].name.clone())
        .collect();
    function.body.retain(|_| *kept.next().expect("one flag a statement"));
    for name in removed {
        report.push("dead definition", format!("{}.{name}", function.name), true, "nothing reads it".to_owned());
    }
}

/// Drops, at every call of `caller`, the results that it does not use, if no other call of the same function uses them.
fn narrow_callees(program: &mut Program, caller: usize) {
    let callees: Vec<FuncId> = calls(program, caller);
    for callee in callees {
        // Decide once all callers were swept: the last in order is the one that comes first in the list.
        let first_caller = (0..program.functions.len()).find(|&f| calls(program, f).contains(&callee));
        if first_caller != Some(caller) {
            continue;
        }
        let count = program.functions[callee.index()].results.len();
        let mut used = vec![false; count];
        for f in &program.functions {
            let mut live: HashSet<TensorId> = f.results.iter().map(|r| r.tensor).collect();
            live.extend(f.body.iter().flat_map(|s| s.reads()));
            for s in &f.body {
                if let Stmt::Call(c) = s
                    && c.function == callee
                {
                    c.results.iter().zip(&mut used).for_each(|(t, u)| *u |= live.contains(t));
                }
            }
        }
        if used.iter().all(|&u| u) {
            continue;
        }
        let retain = |n: usize| used[n];
        filter(&mut program.functions[callee.index()].results, retain);
        for f in &mut program.functions {
            for s in &mut f.body {
                if let Stmt::Call(c) = s
                    && c.function == callee
                {
                    filter(&mut c.results, retain);
                }
            }
        }
    }
}

fn filter<T>(list: &mut Vec<T>, keep: impl Fn(usize) -> bool) {
    let mut n = 0;
    list.retain(|_| {
        n += 1;
        keep(n - 1)
    });
}

fn calls(program: &Program, f: usize) -> Vec<FuncId> {
    let mut out = Vec::new();
    for s in &program.functions[f].body {
        if let Stmt::Call(c) = s
            && !out.contains(&c.function)
        {
            out.push(c.function);
        }
    }
    out
}

/// Removes functions that nothing calls any more.
fn drop_uncalled(program: &mut Program) {
    let mut live = vec![false; program.functions.len()];
    live[program.entry.index()] = true;
    for f in (0..program.functions.len()).rev() {
        if live[f] {
            calls(program, f).iter().for_each(|c| live[c.index()] = true);
        }
    }
    if live.iter().all(|&l| l) {
        return;
    }
    let mut map = HashMap::new();
    for (old, _) in live.iter().enumerate().filter(|(_, l)| **l) {
        map.insert(FuncId(old as u32), FuncId(map.len() as u32));
    }
    filter(&mut program.functions, |n| live[n]);
    program.entry = map[&program.entry];
    for f in &mut program.functions {
        for s in &mut f.body {
            if let Stmt::Call(c) = s {
                c.function = map[&c.function];
            }
        }
    }
}

/// Removes arguments of callees that their bodies do not use.
fn drop_arguments(program: &mut Program) {
    for callee in 0..program.functions.len() {
        if callee == program.entry.index() {
            continue;
        }
        let f = &mut program.functions[callee];
        let mut used: HashSet<TensorId> = f.results.iter().map(|r| r.tensor).collect();
        used.extend(f.body.iter().flat_map(|s| s.reads()));
        let keep: Vec<bool> = f.args.iter().map(|a| used.contains(&a.tensor)).collect();
        if keep.iter().all(|&k| k) {
            continue;
        }
        filter(&mut f.args, |n| keep[n]);
        for f in &mut program.functions {
            for s in &mut f.body {
                if let Stmt::Call(c) = s
                    && c.function.index() == callee
                {
                    filter(&mut c.args, |n| keep[n]);
                }
            }
        }
    }
}
