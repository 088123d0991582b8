"""Roles and rules: requirements of system prompts, data that teaches them, and the pass rate."""

from rnr_kernels.roles.conflicts import draw_requirements
from rnr_kernels.roles.constraints import Constraint, constrain
from rnr_kernels.roles.example import Example, Role, StatedRequirement, read_examples
from rnr_kernels.roles.judge import EndpointJudge
from rnr_kernels.roles.pass_rate import PassRate, pass_rate
from rnr_kernels.roles.pipeline.build import build_dataset
from rnr_kernels.roles.requirement import Requirement
from rnr_kernels.roles.verdict import Verdict

__all__ = [
    "Constraint",
    "EndpointJudge",
    "Example",
    "PassRate",
    "Requirement",
    "Role",
    "StatedRequirement",
    "Verdict",
    "build_dataset",
    "constrain",
    "draw_requirements",
    "pass_rate",
    "read_examples",
]
