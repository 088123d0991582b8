"""The kinds of requirement, by name."""

from rnr_kernels.roles.kind import Kind
from rnr_kernels.roles.kinds.punctuation import NoComma

KINDS: dict[str, type[Kind]] = {kind.name: kind for kind in (NoComma,)}
