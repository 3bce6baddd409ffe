//! Functions and classes that a pickle may name: those of tensors, and those of the settings and records that training scripts put beside
//! them. None is ever called or made; a name that is not here ends the reading, so that nobody takes a hostile file for a sound one.

use super::super::torch::is_storage;

/// Whether a pickle may name it. `full` is the module and the name in Python 3, with a dot between them.
pub fn is_harmless(full: &str) -> bool {
    let within = |prefix: &str, names: &[&str]| full.strip_prefix(prefix).is_some_and(|name| names.contains(&name));
    within("builtins.", &BUILTINS)
        || within("collections.", &COLLECTIONS)
        || within("datetime.", &TIMES)
        || ["pathlib.", "pathlib._local."].iter().any(|module| within(module, &PATHS))
        || within("numpy.", &NUMPY)
        || ["numpy.core.", "numpy._core."].iter().any(|module| within(module, &NUMPY_CORE))
        || full.strip_prefix("numpy.dtypes.").is_some_and(|name| name.ends_with("DType") && name.is_ascii())
        || within("torch.", &TORCH)
        || within("torch.", &TYPES)
        || is_storage(full)
        || OTHERS.contains(&full)
}

const BUILTINS: [&str; 16] = [
    "set",
    "frozenset",
    "dict",
    "list",
    "tuple",
    "slice",
    "complex",
    "object",
    "bytearray",
    "bytes",
    "str",
    "int",
    "float",
    "bool",
    "range",
    "xrange",
];
const COLLECTIONS: [&str; 6] = ["OrderedDict", "defaultdict", "Counter", "deque", "UserDict", "ChainMap"];
const TIMES: [&str; 5] = ["datetime", "date", "time", "timedelta", "timezone"];
const PATHS: [&str; 6] = ["Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath"];
const NUMPY: [&str; 16] = [
    "dtype", "ndarray", "bool_", "bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8",
    "uint16", "uint32", "uint64", "str_",
];
const NUMPY_CORE: [&str; 3] = ["multiarray.scalar", "multiarray._reconstruct", "numeric._frombuffer"];
/// Functions that put tensors together, and what they are given.
const TORCH: [&str; 17] = [
    "_utils._rebuild_tensor",
    "_utils._rebuild_tensor_v2",
    "_utils._rebuild_tensor_v3",
    "_utils._rebuild_parameter",
    "_utils._rebuild_parameter_with_state",
    "_utils._rebuild_sparse_tensor",
    "_utils._rebuild_qtensor",
    "_utils._rebuild_meta_tensor_no_storage",
    "_tensor._rebuild_from_type_v2",
    "serialization._get_layout",
    "Tensor",
    "nn.parameter.Parameter",
    "nn.parameter.Buffer",
    "Size",
    "device",
    "per_tensor_affine",
    "per_channel_affine",
];
const TYPES: [&str; 24] = [
    "float64",
    "float32",
    "float16",
    "bfloat16",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
    "complex32",
    "complex64",
    "complex128",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint64",
    "uint32",
    "uint16",
    "uint8",
    "bool",
    "qint8",
    "quint8",
    "qint32",
    "quint4x2",
];
const OTHERS: [&str; 15] = [
    "_codecs.encode",
    "copyreg._reconstructor",
    "copyreg.__newobj__",
    "argparse.Namespace",
    "types.SimpleNamespace",
    "decimal.Decimal",
    "uuid.UUID",
    // Dictionaries of settings.
    "yacs.config.CfgNode",
    "fvcore.common.config.CfgNode",
    "detectron2.config.config.CfgNode",
    "easydict.EasyDict",
    "addict.addict.Dict",
    "mmcv.utils.config.ConfigDict",
    "mmengine.config.config.ConfigDict",
    "ml_collections.config_dict.config_dict.ConfigDict",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_is_not_among_them() {
        for name in [
            "torch.FloatStorage",
            "torch.storage.UntypedStorage",
            "torch.bfloat16",
            "torch.Size",
            "numpy.dtypes.Int64DType",
            "numpy._core.multiarray.scalar",
            "builtins.range",
            "pathlib._local.PosixPath",
            "yacs.config.CfgNode",
        ] {
            assert!(is_harmless(name), "{name}");
        }
        for name in [
            "os.system",
            "posix.system",
            "nt.system",
            "subprocess.Popen",
            "builtins.eval",
            "builtins.exec",
            "builtins.getattr",
            "builtins.__import__",
            "builtins.open",
            "builtins.compile",
            "runpy.run_path",
            "torch.load",
            "torch.hub.load",
            "torch.00000001Storage",
            "torch.int00",
            "torch.loadStorage",
            "numpy.load",
            "numpy.dtypes.x",
            "pickle.loads",
            "functools.partial",
            "operator.attrgetter",
            "types.FunctionType",
            "types.CodeType",
            "pathlib.x",
            "collections.x",
        ] {
            assert!(!is_harmless(name), "{name}");
        }
    }
}
