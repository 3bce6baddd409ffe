//! A loop-IR kernel as a CubeCL kernel.

use crate::emit::Target;
use crate::walk;
use cubecl::ir::settings::{Dim3, ExecutionMode, KernelSettings};
use cubecl::ir::{AddressType, ElemType};
use cubecl::prelude::{KernelBuilder, KernelDefinition, KernelId, KernelMetadata};
use foveate_compiler::loops::Kernel;
use foveate_compiler::loops::digest::Digest;
use std::fmt::{self, Debug, Formatter};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A kernel without the names in it, which do not change what it does. Comparing and hashing it is cheap, since CubeCL looks
/// kernels up at every launch.
#[derive(Clone)]
pub struct KernelKey {
    kernel: Arc<Kernel>,
    digest: Digest,
}

impl KernelKey {
    /// Takes the names out of a kernel.
    pub fn new(kernel: &Kernel) -> KernelKey {
        let kernel = kernel.nameless();
        let digest = Digest::of(&kernel);
        KernelKey { kernel: Arc::new(kernel), digest }
    }

    /// The kernel's digest.
    #[cfg(feature = "cpu")]
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

impl PartialEq for KernelKey {
    fn eq(&self, other: &KernelKey) -> bool {
        Arc::ptr_eq(&self.kernel, &other.kernel) || (self.digest == other.digest && self.kernel == other.kernel)
    }
}

impl Eq for KernelKey {}

impl Hash for KernelKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

impl Debug for KernelKey {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "loops-{}", self.digest)
    }
}

/// What CubeCL compiles and caches.
#[derive(Clone)]
pub struct LoopKernel {
    key: KernelKey,
    target: Target,
    cube_dim: Dim3,
    /// Whether it is launched for more positions than it has work items.
    guarded: bool,
}

impl LoopKernel {
    /// A kernel for the processor. A cube is one work item; one more argument, a u32, is the first of the items to run.
    #[cfg(feature = "cpu")]
    pub fn host(key: KernelKey) -> LoopKernel {
        LoopKernel { key, target: Target { host: true }, cube_dim: Dim3::new_1d(1), guarded: false }
    }

    /// A kernel for any other device, with `units` work items a cube.
    #[cfg(feature = "wgpu")]
    pub fn portable(key: KernelKey, units: u32, guarded: bool) -> LoopKernel {
        LoopKernel { key, target: Target { host: false }, cube_dim: Dim3::new_1d(units), guarded }
    }

    fn address_type(&self) -> AddressType {
        if self.target.host { AddressType::U64 } else { AddressType::U32 }
    }

    /// The settings it is compiled with.
    pub fn settings(&self) -> KernelSettings {
        let mut settings = KernelSettings::new(self.cube_dim, ExecutionMode::Unchecked, self.address_type());
        settings.kernel_name = "foveate_kernel".to_owned();
        settings
    }
}

impl KernelMetadata for LoopKernel {
    fn name(&self) -> &'static str {
        "foveate loop kernel"
    }

    fn id(&self) -> KernelId {
        KernelId::new::<LoopKernel>()
            .info((self.key.clone(), self.target))
            .cube_dim(self.cube_dim)
            .mode(ExecutionMode::Unchecked)
            .address_type(self.address_type())
    }

    fn address_type(&self) -> ElemType {
        self.address_type().unsigned_type()
    }
}

impl cubecl::CubeKernel for LoopKernel {
    fn define(&self) -> KernelDefinition {
        let mut builder = KernelBuilder::new(self.settings());
        walk::kernel(&mut builder, &self.key.kernel, self.target, self.guarded);
        builder.build()
    }
}
