//! The kernel that copies a buffer: for results that must lie in two places.

use foveate_compiler::ir::{BinaryOp, Elem};
use foveate_compiler::loops::{Buffer, BufferId, Kernel, Op, Stmt, Type, ValueId};

/// Elements a work item copies.
const CHUNK: usize = 256;

/// Copies buffer 0 to buffer 1, both of `len` elements.
pub fn kernel(elem: Elem, len: usize) -> Kernel {
    let (int, value) = (Type { elem: Elem::I32, lanes: 1 }, Type { elem, lanes: 1 });
    let number = |n: usize| Op::Const((n as f64).to_bits());
    let v = ValueId;
    let buffer = |name: &str, written| Buffer { name: name.to_owned(), elem, len, written };
    let body = vec![
        Stmt::Let(v(0), Op::Item),
        Stmt::Let(v(1), number(CHUNK)),
        Stmt::Let(v(2), Op::Binary(BinaryOp::Mul, v(0), v(1))),
        Stmt::Let(v(3), Op::Binary(BinaryOp::Add, v(2), v(1))),
        Stmt::Let(v(4), number(len)),
        Stmt::Let(v(5), Op::Binary(BinaryOp::Min, v(3), v(4))),
        Stmt::For {
            var: v(6),
            lo: v(2),
            hi: v(5),
            body: vec![
                Stmt::Let(v(7), Op::Load { buffer: BufferId(0), index: v(6) }),
                Stmt::Store { buffer: BufferId(1), index: v(6), value: v(7) },
            ],
        },
    ];
    Kernel {
        name: "copy".to_owned(),
        buffers: vec![buffer("from", false), buffer("to", true)],
        locals: Vec::new(),
        values: vec![int, int, int, int, int, int, int, value],
        regs: Vec::new(),
        items: len.div_ceil(CHUNK) as u32,
        body,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foveate_compiler::loops::eval::{BufferData, run};

    #[test]
    fn copies_everything() {
        for len in [1, 255, 256, 257, 1000] {
            let from: Vec<f32> = (0..len).map(|i| i as f32).collect();
            let mut buffers = [BufferData::F32(from.clone()), BufferData::F32(vec![-1.0; len])];
            run(&kernel(Elem::F32, len), &mut buffers).expect("a correct kernel");
            assert_eq!(buffers[1].as_f32(), Some(&from[..]));
        }
    }
}
