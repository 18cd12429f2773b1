"""Conservation laws of any torch model: `laws` finds and verifies them, `track` follows them in the user's training."""

from conslaw.models.curvature import CriticalLearningRate, ModelSharpness
from conslaw.models.families import KINDS
from conslaw.models.found import FoundLaws, Law, laws
from conslaw.models.tracking import track

__all__ = ["KINDS", "CriticalLearningRate", "FoundLaws", "Law", "ModelSharpness", "laws", "track"]
