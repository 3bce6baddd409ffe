"""PyTorch modules of the benchmarked systems, written from their formulas.

Every module has the parameter names of the spec of the same name in `specs/`, so one set of tensors serves both sides. Where a module
has a `form`, the first form listed is the formulation of the publication's authors, and the others compute the same values in a way
that suits PyTorch better.
"""
