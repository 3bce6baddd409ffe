//! Loads and stores of buffers, locals and registers.

use crate::emit::{Emitter, op, storage_elem, vectorized};
use cubecl::ir::dialect::general::ReinterpretCastOp;
use cubecl::ir::dialect::memory::{IndexOp, LoadOp, StoreOp};
use cubecl::ir::dialect::vector::VectorExtractDynamicOp;
use cubecl::ir::pliron::r#type::Typed;
use cubecl::ir::pliron::value::Value;
use cubecl::ir::types::{ArrayType, PointerType};
use foveate_compiler::ir::{BinaryOp, Elem};
use foveate_compiler::loops::{Local, Type};

impl Emitter<'_> {
    /// The value behind a pointer.
    pub fn load(&self, pointer: Value) -> Value {
        op!(self, LoadOp, pointer)
    }

    /// Overwrites the value behind a pointer.
    pub fn store(&self, pointer: Value, value: Value) {
        self.scope.register(&StoreOp::new(self.scope.ctx_mut(), pointer, value));
    }

    /// A pointer to an element of an array, at a position.
    pub fn element(&self, array: Value, position: Value) -> Value {
        let op = IndexOp::maybe_checked(self.scope.ctx_mut(), array, position, false);
        self.push(&op)
    }

    /// A pointer to the vector of an array of vectors that has the element at an index, a multiple of its lanes, first.
    pub fn vector_element(&self, array: Value, index: Value, lanes: u8) -> Value {
        let (int, lanes) = (Type { elem: Elem::I32, lanes: 1 }, self.constant(f64::from(lanes), Elem::I32));
        self.element(array, self.index(self.binary(BinaryOp::Div, int, index, lanes)))
    }

    /// One element of an array of vectors.
    pub fn lane_element(&self, array: Value, index: Value, lanes: u8) -> Value {
        let int = Type { elem: Elem::I32, lanes: 1 };
        let width = self.constant(f64::from(lanes), Elem::I32);
        let vector = self.load(self.element(array, self.index(self.binary(BinaryOp::Div, int, index, width))));
        let lane = self.index(self.remainder(Elem::I32, index, width));
        op!(self, VectorExtractDynamicOp, vector, lane)
    }

    /// Elements as the lanes of a value.
    pub fn lanes_together(&self, lanes: Vec<Value>, ty: Type) -> Value {
        if ty.lanes == 1 { lanes[0] } else { self.construct(storage_elem(ty.elem), lanes) }
    }

    /// A pointer to the vector of `ty` that begins at an element.
    fn vector_pointer(&self, element: Value, ty: Type) -> Value {
        let ctx = self.scope.ctx();
        let space = {
            let pointer = element.get_type(ctx).deref(ctx);
            pointer.downcast_ref::<PointerType>().expect("an element of an array is a pointer").address_space
        };
        let ty = PointerType::get(ctx, vectorized(ctx, storage_elem(ty.elem), ty.lanes), space).into();
        op!(self, ReinterpretCastOp, ty, element)
    }

    /// Values as they come from a buffer.
    fn loaded(&self, value: Value, ty: Type) -> Value {
        match ty.elem {
            Elem::Bool => self.cast(value, Type { elem: Elem::U32, ..ty }, Elem::Bool),
            elem if ty.lanes == 1 => self.widen(value, elem),
            _ => value,
        }
    }

    /// Values as they go into a buffer.
    fn stored(&self, value: Value, ty: Type) -> Value {
        match ty.elem {
            Elem::Bool => self.cast(value, ty, Elem::U32),
            elem if ty.lanes == 1 => self.narrow(value, elem),
            _ => value,
        }
    }

    /// The positions of `lanes` elements at a constant distance, from a scalar I32 index.
    pub fn neighbours(&self, index: Value, lanes: u8, stride: i64) -> Vec<Value> {
        (0..lanes)
            .map(|lane| {
                let offset = self.constant((i64::from(lane) * stride) as f64, Elem::I32);
                op!(self, cubecl::ir::dialect::math::IAddOp, index, offset)
            })
            .collect()
    }

    /// The positions in the lanes of an I32 vector.
    pub fn positions(&self, index: Value, lanes: u8) -> Vec<Value> {
        (0..lanes).map(|lane| self.raw_lane(index, lanes, lane)).collect()
    }

    /// An element a lane.
    pub fn load_each(&self, buffer: Value, positions: Vec<Value>, ty: Type) -> Value {
        let lanes = positions.into_iter().map(|at| self.load(self.element(buffer, self.index(at)))).collect();
        self.loaded(self.lanes_together(lanes, ty), ty)
    }

    /// Stores each lane at its own position.
    pub fn store_each(&self, buffer: Value, positions: Vec<Value>, value: Value, ty: Type) {
        let value = self.stored(value, ty);
        for (lane, at) in positions.into_iter().enumerate() {
            self.store(self.element(buffer, self.index(at)), self.raw_lane(value, ty.lanes, lane as u8));
        }
    }

    /// Neighbouring elements of a buffer from a scalar index.
    pub fn load_buffer(&self, buffer: Value, index: Value, ty: Type) -> Value {
        if ty.lanes > 1 && !self.target.host {
            return self.load_each(buffer, self.neighbours(index, ty.lanes, 1), ty);
        }
        let mut pointer = self.element(buffer, self.index(index));
        if ty.lanes > 1 {
            pointer = self.vector_pointer(pointer, ty);
        }
        self.loaded(self.load(pointer), ty)
    }

    /// Stores lanes next to one another from a scalar index.
    pub fn store_buffer(&self, buffer: Value, index: Value, value: Value, ty: Type) {
        if ty.lanes > 1 && !self.target.host {
            return self.store_each(buffer, self.neighbours(index, ty.lanes, 1), value, ty);
        }
        let mut pointer = self.element(buffer, self.index(index));
        if ty.lanes > 1 {
            pointer = self.vector_pointer(pointer, ty);
        }
        self.store(pointer, self.stored(value, ty));
    }

    /// One lane of an array of vectors, a scalar I32 counting lanes from the array's first.
    pub fn load_lane(&self, array: Value, local: &Local, index: Value) -> Value {
        let Type { elem, lanes } = local.ty;
        if lanes == 1 {
            return self.load(self.element(array, self.index(index)));
        }
        if self.target.host && elem == Elem::F32 {
            // Lanes lie in memory one after the other: the array of vectors is one of scalars.
            let ctx = self.scope.ctx();
            let space = array.get_type(ctx).deref(ctx).downcast_ref::<PointerType>().map(|p| p.address_space);
            let space = space.expect("a local array is a pointer");
            let scalars =
                ArrayType::get(ctx, vectorized(ctx, storage_elem(elem), 1), local.len as usize * lanes as usize);
            let ty = PointerType::get(ctx, scalars.into(), space).into();
            let scalars = op!(self, ReinterpretCastOp, ty, array);
            return self.load(self.element(scalars, self.index(index)));
        }
        self.widen(self.lane_element(array, index, lanes), elem)
    }
}
