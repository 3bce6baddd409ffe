//! A program bound to memory, ready to run.

use super::memory::{ALIGN, ArenaId, Memory, Place, SCRATCH};
use super::temporaries::{len, of_parameters, room, temporaries, written};
use crate::device::{Compiled, Device};
use crate::error::{Error, Result};
use foveate_compiler::interp::{self, Array};
use foveate_compiler::ir::{ArgRole, Elem, Program, ResultRole};
use foveate_compiler::schedule::{BufferRole, KernelGraph};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where arguments and results of a program lie that others share with it. What neither knows gets memory of its own.
pub struct Bindings<'a> {
    /// The place of an argument.
    pub args: &'a dyn Fn(&ArgRole) -> Option<Place>,
    /// The place of a result.
    pub results: &'a dyn Fn(&ResultRole) -> Option<Place>,
}

impl Bindings<'_> {
    /// Nothing is shared.
    pub const NONE: Bindings<'static> = Bindings { args: &|_| None, results: &|_| None };
}

/// An argument or a result in its place.
struct Bound<R> {
    role: R,
    place: Place,
    elem: Elem,
    shape: Vec<usize>,
}

/// A program on a device: run it as often as wanted; nothing is allocated while it runs (the interpreter apart).
pub struct Session {
    args: Vec<Bound<ArgRole>>,
    results: Vec<Bound<ResultRole>>,
    work: Work,
    /// Results that must also be put elsewhere after a run: from, to, how.
    copies: Vec<Copy>,
    /// Next states to be put where the states are.
    states: Vec<Copy>,
    scratch: usize,
    /// The arenas of the parameters.
    params: Vec<ArenaId>,
    /// Their versions when what depends on them alone was computed.
    prepared: Mutex<Option<Vec<u64>>>,
}

enum Work {
    Interpret(Box<Program>),
    Launch(Vec<Launched>),
}

struct Launched {
    kernel: Compiled,
    places: Vec<Place>,
    /// Whether what it computes depends on parameters alone, and is kept.
    kept: bool,
}

struct Copy {
    from: Place,
    to: Place,
    kernel: Compiled,
}

impl Session {
    /// Prepares a program. `graph` is its schedule for the memory's device; the interpreter needs none.
    pub fn new(
        memory: &mut Memory,
        program: &Program,
        graph: Option<&KernelGraph>,
        bindings: &Bindings<'_>,
    ) -> Result<Session> {
        let mut own_len = 0;
        let mut place = |shared: Option<Place>, shape: &[usize]| {
            let len: usize = shape.iter().product();
            match shared {
                Some(p) if p.len == len => Ok(p),
                Some(p) => {
                    let message = format!("a tensor of shape {shape:?} does not fit a place of {} elements", p.len);
                    Err(Error::Device(message))
                }
                None => {
                    // In an arena that is made when its size is known; until then it goes by the name of the scratch one.
                    let place = Place { arena: SCRATCH, offset: own_len, len };
                    own_len += len.next_multiple_of(ALIGN);
                    Ok(place)
                }
            }
        };
        let entry = program.entry();
        let (mut args, mut results) = (Vec::new(), Vec::new());
        for arg in &entry.args {
            let (shape, elem) = (program.shape(entry, arg.tensor), entry.tensor(arg.tensor).elem);
            let at = place((bindings.args)(&arg.role), &shape)?;
            args.push(Bound { role: arg.role.clone(), place: at, elem, shape });
        }
        for result in &entry.results {
            let (shape, elem) = (program.shape(entry, result.tensor), entry.tensor(result.tensor).elem);
            let at = place((bindings.results)(&result.role), &shape)?;
            results.push(Bound { role: result.role.clone(), place: at, elem, shape });
        }
        let own = memory.add(own_len)?;
        let settle = |place: &mut Place| {
            if place.arena == SCRATCH {
                place.arena = own;
            }
        };
        args.iter_mut().for_each(|a| settle(&mut a.place));
        results.iter_mut().for_each(|r| settle(&mut r.place));

        let mut copies = Vec::new();
        let (work, scratch) = match (memory.device(), graph) {
            (Device::Interpreter, _) => (Work::Interpret(Box::new(program.clone())), 0),
            (_, None) => {
                return Err(Error::Device("a program must be scheduled before a device can run it".to_owned()));
            }
            (_, Some(graph)) => bind_graph(memory, graph, &args, &results, &mut copies)?,
        };
        let mut states = Vec::new();
        for next in &results {
            let ResultRole::NextState(name) = &next.role else { continue };
            if let Some(state) = args.iter().find(|a| matches!(&a.role, ArgRole::State(n) if n == name)) {
                states.push(copy(memory.device(), next.elem, next.place, state.place)?);
            }
        }
        let params = args.iter().filter(|a| matches!(a.role, ArgRole::Param(_)));
        let mut params: Vec<ArenaId> = params.map(|a| a.place.arena).collect();
        params.dedup();
        Ok(Session { args, results, work, copies, states, scratch, params, prepared: Mutex::new(None) })
    }

    /// Where an argument lies; `None` if the program has no such argument.
    pub fn arg(&self, role: &ArgRole) -> Option<Place> {
        self.args.iter().find(|a| a.role == *role).map(|a| a.place)
    }
    /// Where a result lies, its element type and its shape.
    pub fn result(&self, role: &ResultRole) -> Option<(Place, Elem, &[usize])> {
        self.results.iter().find(|r| r.role == *role).map(|r| (r.place, r.elem, &r.shape[..]))
    }
    /// Number of kernel launches of a run.
    pub fn launches(&self) -> usize {
        match &self.work {
            Work::Interpret(_) => 0,
            Work::Launch(l) => l.len(),
        }
    }
    /// Bytes of memory that temporaries need.
    pub fn scratch_bytes(&self) -> usize {
        self.scratch * 4
    }

    /// Runs the program. States are as before until [`Session::advance`]. Where no gradients are computed, what depends on nothing but parameters
    /// is only computed again if they may have changed since the last run.
    pub fn run(&self, memory: &mut Memory) -> Result<()> {
        let prepared = *self.prepared() == Some(self.versions(memory));
        self.run_from(memory, prepared)
    }

    fn prepared(&self) -> MutexGuard<'_, Option<Vec<u64>>> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn versions(&self, memory: &Memory) -> Vec<u64> {
        self.params.iter().map(|&arena| memory.version(arena)).collect()
    }

    fn run_from(&self, memory: &mut Memory, prepared: bool) -> Result<()> {
        match &self.work {
            Work::Launch(launches) => {
                for launch in launches.iter().filter(|l| !(l.kept && prepared)) {
                    memory.launch(&launch.kernel, &launch.places)?;
                }
                // Before results are: they may lie where parameters lie.
                *self.prepared() = Some(self.versions(memory));
                self.results.iter().for_each(|r| memory.note_change(r.place.arena));
            }
            Work::Interpret(program) => {
                let mut values = Vec::with_capacity(self.args.len());
                for a in &self.args {
                    let data = memory.read_f64(a.place, a.elem)?;
                    values.push((a.role.clone(), Array { shape: a.shape.clone(), data }));
                }
                let out = interp::run(program, &values).map_err(|e| Error::Device(e.to_string()))?;
                for ((_, array), r) in out.into_iter().zip(&self.results) {
                    memory.write(r.place, &crate::checkpoint::Data::F64(array.data))?;
                }
            }
        }
        apply(&self.copies, memory)
    }

    /// Runs the program so many times, waiting for every launch: the seconds of each launch of its schedule, run by run.
    pub fn measure(&self, memory: &mut Memory, runs: usize) -> Result<Vec<Vec<f64>>> {
        let mut out = Vec::with_capacity(runs);
        for _ in 0..runs {
            memory.measure();
            let outcome = self.run_from(memory, false);
            let times = memory.measured();
            outcome?;
            // Copies of results come last and are none of the schedule's.
            out.push(times.iter().take(self.launches()).map(|(_, time)| time.as_secs_f64()).collect());
        }
        Ok(out)
    }

    /// Puts the next states of the last run where the states are.
    pub fn advance(&self, memory: &mut Memory) -> Result<()> {
        apply(&self.states, memory)
    }
}

fn apply(copies: &[Copy], memory: &mut Memory) -> Result<()> {
    for c in copies {
        match memory.device() {
            Device::Interpreter => memory.copy_values(c.from, c.to),
            _ => {
                memory.launch(&c.kernel, &[c.from, c.to])?;
                memory.note_change(c.to.arena);
            }
        }
    }
    Ok(())
}

fn copy(device: &Device, elem: Elem, from: Place, to: Place) -> Result<Copy> {
    Ok(Copy { from, to, kernel: device.compile(&super::copy::kernel(elem, from.len))? })
}

/// Compiles the kernels, gives every buffer a place and binds the launches. Also gives the elements of scratch memory.
fn bind_graph(
    memory: &mut Memory,
    graph: &KernelGraph,
    args: &[Bound<ArgRole>],
    results: &[Bound<ResultRole>],
    copies: &mut Vec<Copy>,
) -> Result<(Work, usize)> {
    let lacking =
        |what: String| Error::Device(format!("the schedule has a buffer for {what}, which the program lacks"));
    let mut places: Vec<Option<Place>> = Vec::with_capacity(graph.buffers.len());
    for buffer in &graph.buffers {
        places.push(match &buffer.role {
            BufferRole::Temporary => None,
            BufferRole::Arg(role) => {
                let arg = args.iter().find(|a| a.role == *role).ok_or_else(|| lacking(format!("{role:?}")))?;
                Some(arg.place)
            }
            BufferRole::Result(roles) => {
                let mut all = Vec::new();
                for role in roles {
                    let r = results.iter().find(|r| r.role == *role).ok_or_else(|| lacking(format!("{role:?}")))?;
                    all.push(r.place);
                }
                // Kernels write the first place; the others get copies.
                for &to in all.iter().skip(1) {
                    copies.push(copy(memory.device(), buffer.elem, all[0], to)?);
                }
                all.first().copied()
            }
        });
    }
    let kept = of_parameters(graph);
    let room = room(graph, &kept);
    if room > 0 {
        let (arena, mut offset) = (memory.add(room)?, 0);
        for &b in &kept {
            let place = Place { arena, offset, len: len(graph, b) };
            offset += place.len.next_multiple_of(ALIGN);
            places[b] = Some(place);
        }
    }
    let (temporaries, scratch) = temporaries(graph, &kept);
    for (b, place) in temporaries {
        places[b] = Some(place);
    }
    memory.reserve_scratch(scratch)?;

    let kernels = graph.kernels.iter().map(|k| memory.device().compile(k)).collect::<Result<Vec<_>>>()?;
    let launches = graph
        .launches
        .iter()
        .map(|l| {
            let places = l.buffers.iter().map(|&b| places[b].expect("every buffer of a launch was placed")).collect();
            let kept = written(graph, l).all(|b| kept.contains(&b));
            Launched { kernel: kernels[l.kernel].clone(), places, kept }
        })
        .collect();
    Ok((Work::Launch(launches), scratch + room))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Data;
    use foveate_compiler::ir::{
        Arg, Axis, AxisId, BinaryOp, Clause, Definition, Expr, FnResult, FuncId, Function, Keep, Stmt,
    };
    use foveate_compiler::schedule::schedule;

    /// Two axes of these sizes, and a function with nothing in it yet.
    fn over(i: usize, j: usize) -> (Vec<Axis>, Function) {
        let axes = [("I", i), ("J", j)].map(|(name, size)| Axis { name: name.into(), size, pieces: vec![] });
        let (tensors, vars, args, body, results) = Default::default();
        (axes.to_vec(), Function { name: "main".into(), tensors, vars, args, body, results })
    }

    /// y[i] = x[i] + s[i], z[j] = sum(i) y[i] * w[i, j]; the next s is y, the gradient of "w" has z's values twice.
    fn program() -> Program {
        let (axes, mut f) = over(6, 10);
        let (i, j) = (AxisId(0), AxisId(1));
        let e = Elem::F32;
        let [x, s] = ["x", "s"].map(|n| f.new_tensor(n, e, vec![i], None));
        let w = f.new_tensor("w", e, vec![i, j], None);
        let y = f.new_tensor("y", e, vec![i], None);
        let z = f.new_tensor("z", e, vec![j], None);
        let (v, a, b) = (f.new_var("i", i), f.new_var("i", i), f.new_var("j", j));
        let body = Expr::binary(BinaryOp::Add, Expr::read(e, x, vec![v.into()]), Expr::read(e, s, vec![v.into()]));
        let product = Expr::mul(Expr::read(e, y, vec![a.into()]), Expr::read(e, w, vec![a.into(), b.into()]));
        let total = Expr::sum(vec![a], foveate_compiler::ir::Pred::True, product);
        for (tensor, vars, body) in [(y, v, body), (z, b, total)] {
            let clauses = vec![Clause { vars: vec![vars], at: vec![vars.into()], body }];
            f.body.push(Stmt::Define(Definition { tensor, clauses, keep: Keep::Auto }));
        }
        f.args = vec![
            Arg { tensor: w, role: ArgRole::Param("w".into()) },
            Arg { tensor: s, role: ArgRole::State("s".into()) },
            Arg { tensor: x, role: ArgRole::Input("x".into()) },
        ];
        f.results = [
            (z, ResultRole::Output("z".into())),
            (y, ResultRole::NextState("s".into())),
            (z, ResultRole::Exposed("z".into())),
        ]
        .map(|(tensor, role)| FnResult { tensor, role })
        .to_vec();
        Program { axes, functions: vec![f], entry: FuncId(0) }
    }

    fn devices() -> Vec<Device> {
        let mut out = vec![Device::Interpreter, Device::Loops];
        out.extend(["cpu"].iter().filter_map(|n| Device::open(n).ok()));
        out
    }

    #[test]
    fn runs_keeps_states_and_copies_results() {
        for device in devices() {
            let program = program();
            let graph = device.facts().map(|f| schedule(&program, &f));
            let mut memory = Memory::new(device.clone()).expect("memory");
            let shared = memory.add(200).expect("memory");
            let x = Place { arena: shared, offset: ALIGN, len: 6 };
            let args = |r: &ArgRole| (*r == ArgRole::Input("x".into())).then_some(x);
            let s = Session::new(&mut memory, &program, graph.as_ref(), &Bindings { args: &args, ..Bindings::NONE })
                .expect("a program that fits");
            memory.write(x, &Data::F32((0..6).map(|i| i as f32).collect())).expect("fits");
            let w = s.arg(&ArgRole::Param("w".into())).expect("an argument");
            memory.write(w, &Data::F32((0..60).map(|i| (i % 10) as f32).collect())).expect("fits");
            let state = s.arg(&ArgRole::State("s".into())).expect("an argument");
            memory.write(state, &Data::F32(vec![1.0; 6])).expect("fits");
            for run in 1..4 {
                s.run(&mut memory).expect("runs");
                let sum = 15.0 + 6.0 + f64::from(15 * (run - 1));
                for role in [ResultRole::Output("z".into()), ResultRole::Exposed("z".into())] {
                    let (place, elem, shape) = s.result(&role).expect("a result");
                    let got = memory.read_f64(place, elem).expect("readable");
                    assert_eq!(shape, [10]);
                    assert_eq!(got, (0..10).map(|j| f64::from(j) * sum).collect::<Vec<_>>(), "{}", device.name());
                }
                s.advance(&mut memory).expect("advances");
                let next = memory.read_f32(state).expect("readable");
                assert_eq!(next, (0..6).map(|i| 1.0 + (i * run) as f32).collect::<Vec<_>>(), "{}", device.name());
            }
        }
    }

    /// t[j] = sum(i) w[i, j], z[i, j] = t[j] * x[i]; the sum is stored.
    fn product_with_a_sum_of_parameters() -> Program {
        let (axes, mut f) = over(300, 40);
        let (i, j) = (AxisId(0), AxisId(1));
        let e = Elem::F32;
        let (w, x) = (f.new_tensor("w", e, vec![i, j], None), f.new_tensor("x", e, vec![i], None));
        let (t, z) = (f.new_tensor("t", e, vec![j], None), f.new_tensor("z", e, vec![i, j], None));
        let (a, b) = (f.new_var("i", i), f.new_var("j", j));
        let sum = Expr::sum(vec![a], foveate_compiler::ir::Pred::True, Expr::read(e, w, vec![a.into(), b.into()]));
        let (c, d) = (f.new_var("i", i), f.new_var("j", j));
        let product = Expr::mul(Expr::read(e, t, vec![d.into()]), Expr::read(e, x, vec![c.into()]));
        for (tensor, vars, body) in [(t, vec![b], sum), (z, vec![c, d], product)] {
            let clauses = vec![Clause { at: vars.iter().map(|&v| v.into()).collect(), vars, body }];
            f.body.push(Stmt::Define(Definition { tensor, clauses, keep: Keep::Save }));
        }
        f.args = vec![
            Arg { tensor: w, role: ArgRole::Param("w".into()) },
            Arg { tensor: x, role: ArgRole::Input("x".into()) },
        ];
        f.results = vec![FnResult { tensor: z, role: ResultRole::Output("z".into()) }];
        Program { axes, functions: vec![f], entry: FuncId(0) }
    }

    #[test]
    fn what_depends_on_parameters_alone_is_computed_when_they_change() {
        for device in devices() {
            let program = product_with_a_sum_of_parameters();
            let graph = device.facts().map(|f| schedule(&program, &f));
            let mut memory = Memory::new(device.clone()).expect("memory");
            let params = memory.add(12_000).expect("memory");
            let w = Place { arena: params, offset: 0, len: 12_000 };
            let args = |r: &ArgRole| matches!(r, ArgRole::Param(_)).then_some(w);
            let s = Session::new(&mut memory, &program, graph.as_ref(), &Bindings { args: &args, ..Bindings::NONE })
                .expect("a program that fits");
            let x = s.arg(&ArgRole::Input("x".into())).expect("an argument");
            let run = |memory: &mut Memory, weight: f32, input: f32| {
                memory.write(x, &Data::F32(vec![input; 300])).expect("fits");
                memory.measure();
                s.run(memory).expect("runs");
                let launches = memory.measured().len();
                let (place, elem, _) = s.result(&ResultRole::Output("z".into())).expect("a result");
                let z = memory.read_f64(place, elem).expect("readable");
                assert!(z.iter().all(|&z| z == f64::from(300.0 * weight * input)), "{}", device.name());
                launches
            };
            memory.write(w, &Data::F32(vec![1.0; 12_000])).expect("fits");
            let first = run(&mut memory, 1.0, 2.0);
            let second = run(&mut memory, 1.0, 3.0);
            memory.write(w, &Data::F32(vec![0.5; 12_000])).expect("fits");
            let third = run(&mut memory, 0.5, 3.0);
            assert_eq!(first, third, "{}", device.name());
            assert!(first == 0 || second < first, "{}: {second} of {first} launches", device.name());
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let program = program();
        let mut memory = Memory::new(Device::Interpreter).expect("memory");
        let arena = memory.add(8).expect("memory");
        let args = |_: &ArgRole| Some(Place { arena, offset: 0, len: 5 });
        let refused = Session::new(&mut memory, &program, None, &Bindings { args: &args, ..Bindings::NONE });
        assert!(refused.err().is_some_and(|e| e.to_string().contains("[6, 10] does not fit")));
    }
}
