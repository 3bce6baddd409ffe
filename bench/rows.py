"""The rows of the benchmark: what is run on both sides, and what ratio is aimed at.

To add one, add it to `ROWS`, and if its module is new, a builder to subjects.py. Nothing here needs PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatch

EAGER, COMPILE, FREEZE = "eager", "compile", "freeze"
"""How PyTorch runs a module: as written; through torch.compile; through torch.compile with constants folded (inference only)."""

OUTPUT_BOUND = 1e-5
GRADIENT_BOUND = 1e-4
"""Largest relative L2 errors against the float64 reference, the bounds of tests/golden; a gradient may also differ by 1e-7 of the norm
of all gradients."""
LOOSE_BOUND = 5e-3
"""Where float32 rounding takes single values across a jump or a kink, whose share of a gradient is about this; see the rows' `why`."""


@dataclass(frozen=True)
class Variant:
    """One way in which PyTorch does the work of a row."""

    form: str
    """The form of the reference module."""
    mode: str
    """`EAGER`, `COMPILE` or `FREEZE`."""
    rewritten: bool = False
    """Whether it is more than the authors' formulation run as it comes: rewritten for PyTorch, or with special settings."""

    @property
    def name(self) -> str:
        return f"{self.form}/{self.mode}"


@dataclass(frozen=True)
class Row:
    """One piece of work."""

    key: str
    title: str
    subject: str
    """What subjects.py builds."""
    part: str
    """`gradients` (forward and backward), `step` (with AdamW) or `inference`, as in `foveate bench --part`."""
    batch: int
    item: str
    """FILE:ITEM of the spec."""
    variants: tuple[Variant, ...]
    settings: dict[str, str] = field(default_factory=dict)
    """Arguments of the item, as in `--set`."""
    size: dict[str, int] = field(default_factory=dict)
    """Sizes for subjects.py."""
    target: float | None = None
    """How many times faster than PyTorch Foveate is to be at least."""
    loose: str = ""
    """A pattern of gradients' names that have `LOOSE_BOUND` in place of `GRADIENT_BOUND`."""
    why: str = ""
    """Why these have another bound."""

    def bound(self, gradient: str) -> float:
        """The bound of a gradient, by its name."""
        return LOOSE_BOUND if self.loose and fnmatch(gradient, self.loose) else GRADIENT_BOUND

    @property
    def label(self) -> str:
        """The title with the part."""
        return self.title + {"gradients": "", "step": ", training step", "inference": ", inference"}[self.part]


def variants(authors: tuple[str, ...], rewritten: tuple[str, ...] = (), inference: bool = False) -> tuple[Variant, ...]:
    """All ways of running forms: eager and compiled, and in inference with constants folded too."""
    out = [Variant(form, mode) for form in authors for mode in (EAGER, COMPILE)]
    for form in rewritten:
        # FlexAttention on CPUs is for compiled code only.
        modes = (COMPILE,) if form == "flex" else (EAGER, COMPILE)
        out += [Variant(form, mode, True) for mode in modes]
    if inference:
        out += [Variant(form, FREEZE, True) for form in (*authors, *rewritten) if form != "flex"]
    return tuple(out)


# One of M elements that fall on the other side changes a gradient by about 1 / sqrt(M) of its norm.
GUARDS = (
    "the guards of vicinity attention jump at 0, and their derivative jumps at 1e-4; of millions of values, float32 rounding takes some across, in PyTorch too"
)
KINKS = (
    "the stem of SP-ViT has ten million values before its ReLUs; float32 rounding takes about one across zero, in compiled PyTorch too, "
    "and the gradients of the stem show it"
)


def _module(key: str, title: str, subject: str, item: str, batch: int, grid: int, channels: int, heads: int, target: float | None, **more: object) -> Row:
    """A module on a square grid."""
    size = {"grid": grid, "channels": channels, "heads": heads}
    settings = {"H": str(heads), "grid": f"{grid}x{grid}"}
    if subject == "self_attention":
        settings = {"H": str(heads)}
    fields: dict = {"part": "gradients", "settings": settings, "size": size, "target": target, **more}
    return Row(key, title, subject, batch=batch, item=f"specs/{item}", **fields)


ATTENTION = "attention/full.fov:SelfAttention"
PRIOR = "attention/sp_sa.fov:SpatialPriorAttention"
CENTRAL = "attention/mcsa.fov:CentralAttention"
VICINITY = "attention/vicinity.fov:VicinityAttention"
ENTROPY = "losses/spatial_entropy.fov:SpatialEntropy"

_PLAIN = variants(("plain", "sdpa"))
_PRIOR = variants(("authors",), ("table",))
_CENTRAL = variants(("unfold",), ("slices",))
_VICINITY = variants(("authors",))

MODULES = (
    _module("attention", "self-attention, 8 x 196 x 384, 6 heads", "self_attention", ATTENTION, 8, 14, 384, 6, 1.8, variants=_PLAIN),
    _module("sp_sa", "SP-SA, 8 x 196 x 384, 6 heads", "spatial_prior", PRIOR, 8, 14, 384, 6, 3.5, variants=_PRIOR),
    _module("mcsa_56", "MCSA, 8 x 56 x 56 x 64, 1 head", "central", CENTRAL, 8, 56, 64, 1, 7.0, variants=_CENTRAL),
    _module("mcsa_28", "MCSA, 8 x 28 x 28 x 128, 2 heads", "central", CENTRAL, 8, 28, 128, 2, 6.0, variants=_CENTRAL),
    _module(
        "vicinity_56", "vicinity, 8 x 56 x 56 x 96, 1 head, f 2", "vicinity", VICINITY, 8, 56, 96, 1, 3.0,
        variants=_VICINITY, loose="*", why=GUARDS,
    ),
    _module(
        "vicinity_28", "vicinity, 8 x 28 x 28 x 160, 2 heads, f 2", "vicinity", VICINITY, 8, 28, 160, 2, 3.0,
        variants=_VICINITY, loose="*", why=GUARDS,
    ),
    _module(
        "entropy", "spatial entropy, 8 x 6 x 196", "entropy", ENTROPY, 8, 14, 0, 6, 10.0, variants=variants(("maps",), ("mosaic",)),
    ),
)  # fmt: skip

FORWARDS = (
    _module(
        "attention_forward", "self-attention, 8 x 196 x 384, 6 heads", "self_attention", ATTENTION, 8, 14, 384, 6, None,
        part="inference", variants=variants(("plain", "sdpa"), ("flex",), inference=True),
    ),
    _module(
        "sp_sa_forward", "SP-SA, 8 x 196 x 384, 6 heads", "spatial_prior", PRIOR, 8, 14, 384, 6, None,
        part="inference", variants=variants(("authors",), ("table", "flex"), inference=True),
    ),
)  # fmt: skip


def _models() -> tuple[Row, ...]:
    """Training steps, then inference, of the four models."""
    models = (
        ("simvit_micro", "SimViT-Micro", "specs/models/simvit.fov:SimVitMicro", ("rewritten",), 3.0, 2.5),
        ("vvt_tiny", "VVT-Tiny", "specs/models/vvt.fov:VvtTiny", (), 1.9, 1.8),
        ("sp_vit_s", "SP-ViT-S", "specs/models/sp_vit.fov:SpVitS", ("rewritten",), 2.0, 2.5),
        ("deit_sar_tiny", "DeitSar-Tiny", "specs/models/deit_sar.fov:DeitSarTiny", ("rewritten",), 1.7, 1.7),
    )
    steps, inference = [], []
    for key, title, item, rewritten, step, forward in models:
        more: dict = {"vvt_tiny": {"loose": "*", "why": GUARDS}, "sp_vit_s": {"loose": "patch_embed.*", "why": KINKS}}.get(key, {})
        steps.append(Row(f"{key}_step", title, key, "step", 4, f"{item}Loss", variants(("authors",), rewritten), target=step, **more))
        forms = (*rewritten, "flex") if key == "sp_vit_s" else rewritten
        inference.append(Row(f"{key}_inference", title, key, "inference", 4, item, variants(("authors",), forms, True), target=forward))
    return (*steps, *inference)


MODELS = _models()
ROWS = (*MODULES, *FORWARDS, *MODELS)

VICINITY_SCALING = tuple(
    _module(f"vicinity_scaling_{side}", f"{side} x {side}, batch {batch}", "vicinity", VICINITY, batch, side, 96, 1, None, variants=_VICINITY)
    for side, batch in ((14, 64), (28, 16), (56, 4), (112, 1))
)
ATTENTION_SCALING = tuple(
    _module(
        f"attention_scaling_{side}", f"N = {side * side}, batch {batch}", "self_attention", ATTENTION, batch, side, 384, 6, None,
        variants=_PLAIN,
    )
    for side, batch in ((14, 16), (28, 4), (56, 1))
)  # fmt: skip

SCALING_BOUND = 1.25
"""Largest ratio between sizes with the same number of tokens in all."""
MEMORY_TARGET = 0.5
"""Share of PyTorch's memory that Foveate's is to take at most."""

BY_KEY = {row.key: row for row in (*ROWS, *VICINITY_SCALING, *ATTENTION_SCALING)}
