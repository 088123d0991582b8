"""The settings of the loop."""

from dataclasses import dataclass, replace

from rnr_kernels.lab.roles.world_roles import KINDS
from rnr_kernels.roles.pipeline.settings import BuildSettings
from rnr_kernels.tuning.settings import Settings, recipe


@dataclass(frozen=True)
class RoleStudy:
    """One run of the loop."""

    seeds: tuple[int, ...] = (1, 2, 3)
    """Of the tuning; the data is the same for all."""
    instructions: int = 4000
    epochs: int = 4
    learning_rate: float = 1.5e-3
    batch_size: int = 8
    """Small, for as many steps as a small model needs for something so new to it. They cost it some
    of the facts that it knew: the plain questions tell how many."""
    examples: int = 200
    """Held-out ones, and as many plain questions."""
    max_new_tokens: int = 120

    def build_settings(self) -> BuildSettings:
        """One to three requirements; two of five questions are out of scope, one example of five is
        plain, so that the model learns when there is nothing to follow."""
        return BuildSettings(
            num_requirements=(1, 3),
            written_share=0.0,
            out_of_scope_share=0.4,
            plain_share=0.2,
            kinds=KINDS,
        )

    def tuning_settings(self, seed: int) -> Settings:
        """The paper's recipe, but for learning rate, epochs and batch, which is one pass."""
        return replace(
            recipe("paper", "instruction"),
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            device_batch_size=self.batch_size,
            seed=seed,
        )


FULL = RoleStudy()
QUICK = RoleStudy(seeds=(1, 2), instructions=48, epochs=1, examples=8, max_new_tokens=60)
"""Every step on little data: whether it runs, not what comes out."""
