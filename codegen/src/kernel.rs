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

    /// The kernel.
    #[cfg(feature = "cpu")]
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
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

/// A kernel for a graphics device.
#[cfg(feature = "wgpu")]
#[derive(Clone)]
pub struct LoopKernel {
    key: KernelKey,
    cube_dim: Dim3,
    /// Whether it is launched for more positions than it has work items.
    guarded: bool,
}

#[cfg(feature = "wgpu")]
impl LoopKernel {
    /// With `units` work items a cube.
    pub fn new(key: KernelKey, units: u32, guarded: bool) -> LoopKernel {
        LoopKernel { key, cube_dim: Dim3::new_1d(units), guarded }
    }

    /// The settings it is compiled with.
    pub fn settings(&self) -> KernelSettings {
        settings(self.cube_dim, AddressType::U32)
    }
}

#[cfg(feature = "wgpu")]
impl KernelMetadata for LoopKernel {
    fn name(&self) -> &'static str {
        "foveate loop kernel"
    }

    fn id(&self) -> KernelId {
        KernelId::new::<LoopKernel>()
            .info(self.key.clone())
            .cube_dim(self.cube_dim)
            .mode(ExecutionMode::Unchecked)
            .address_type(AddressType::U32)
    }

    fn address_type(&self) -> ElemType {
        AddressType::U32.unsigned_type()
    }
}

#[cfg(feature = "wgpu")]
impl cubecl::CubeKernel for LoopKernel {
    fn define(&self) -> KernelDefinition {
        let mut builder = KernelBuilder::new(self.settings());
        walk::kernel(&mut builder, &self.key.kernel, Target { host: false }, self.guarded);
        builder.build()
    }
}

/// Kernels for the processor that are compiled as one. A cube is one work item; [`walk::kernels`] has the arguments.
#[cfg(feature = "cpu")]
#[derive(Clone, Default)]
pub struct HostKernels(pub Vec<KernelKey>);

#[cfg(feature = "cpu")]
impl KernelMetadata for HostKernels {
    fn name(&self) -> &'static str {
        "foveate loop kernels"
    }

    fn id(&self) -> KernelId {
        KernelId::new::<HostKernels>().info(self.0.clone()).mode(ExecutionMode::Unchecked)
    }

    fn address_type(&self) -> ElemType {
        AddressType::U64.unsigned_type()
    }
}

#[cfg(feature = "cpu")]
impl cubecl::CubeKernel for HostKernels {
    fn define(&self) -> KernelDefinition {
        let mut builder = KernelBuilder::new(settings(Dim3::new_1d(1), AddressType::U64));
        walk::kernels(&mut builder, self.0.iter().map(|key| &*key.kernel), Target { host: true });
        builder.build()
    }
}

fn settings(cube_dim: Dim3, address: AddressType) -> KernelSettings {
    let mut settings = KernelSettings::new(cube_dim, ExecutionMode::Unchecked, address);
    settings.kernel_name = "foveate_kernel".to_owned();
    settings
}
