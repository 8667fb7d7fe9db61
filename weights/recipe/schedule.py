"""What a training run depends on, and its schedule: warm up, hold, fall."""

from __future__ import annotations

from dataclasses import dataclass

BLOCK_SIZES = (4, 8, 16, 32)
CONTEXTS = (256, 512, 1024)  # tokens in a row


@dataclass(frozen=True, slots=True)
class Decay:
    """The learning rate's straight fall to zero, which ends the run; it can be announced at any step."""

    start: int
    steps: int
    share: float  # of the full learning rate, where it begins

    @property
    def end(self) -> int:
        return self.start + self.steps

    def share_at(self, step: int) -> float:
        return self.share * min(1.0, max(0.0, 1 - (step - self.start) / self.steps))


@dataclass(frozen=True, slots=True)
class Recipe:
    """The same recipe and machine give the same weights."""

    tokens: int
    seed: int = 1
    batch_tokens: int = 4096
    micro_tokens: int = 1024  # whose activations are held at a time: they stay in the cache
    matrix_lr: float = 0.02
    embedding_lr: float = 0.05
    head_lr: float = 0.005
    norm_lr: float = 0.01
    peak: float = 1.0  # share of these learning rates that is reached
    warmup_steps: int = 30
    decay: float = 0.3  # share of all tokens
    copying_steps: int = 0  # at the beginning, of next tokens only: two rows of three are repeats
    dropout: float = 0.0  # share of the embedding, and of what layers add to it, that a pass leaves out
    teacher_share: float = 0.0  # of the next-token loss, where a teacher says what it expects
    joint_every: int = 2  # steps; 0: next tokens only
    block_sizes: tuple[int, ...] = BLOCK_SIZES  # of the joint objective, one drawn per step
    masked_share: float = 1.0  # weight of the masked loss beside the next-token loss
    fast: bool = False  # products in bfloat16: twice as fast on a processor that multiplies it
    compiled: bool = False

    @property
    def steps(self) -> int:
        return self.tokens // self.batch_tokens

    @property
    def planned_decay(self) -> Decay:
        """The fall that ends a run whose end nobody announces."""
        steps = max(1, round(self.steps * self.decay))
        return Decay(self.steps - steps, steps, self.peak)

    def learning_rate_at(self, step: int, decay: Decay) -> float:
        """Share of the full learning rate."""
        warm = self.peak * min(1.0, (step + 1) / self.warmup_steps)
        return min(warm, decay.share_at(step))

    def context_at(self, step: int, decay: Decay) -> int:
        """Short rows while the rate is held, longer ones as it falls: attention costs most where it teaches least."""
        progress = (step - decay.start) / decay.steps
        return CONTEXTS[(progress >= 0) + (progress >= 0.6)]

    def is_joint(self, step: int) -> bool:
        return self.joint_every > 0 and step >= self.copying_steps and step % self.joint_every == 0
