"""The protocols of the paper: zero-shot classification (section 3.4), linear evaluation (section 3.3), fine-tuning."""

from dataclasses import dataclass
from pathlib import Path

from shared.evaluation import Protocol
from shared.evaluation.protocol import safe_name


@dataclass(frozen=True)
class ECGProtocol(Protocol):
    """A protocol of the paper.

    Attributes:
        prompts: Prompts of zero-shot classification, see `ecg_text.prompts.load_prompts`; None means the model's own.
        zero_shot: Whether classes are told by their prompts, without training.
        probability: Whether a class's score is its probability among the classes, and not the cosine of section 3.4.
    """

    prompts: str | None = None
    zero_shot: bool = False
    probability: bool = False


ZERO_SHOT = ECGProtocol("zero_shot", "Zero-shot classification", "auroc", zero_shot=True)
# Some prompts are near to every report, or to none: what is left of a cosine when that is taken out.
ZERO_SHOT_PROBABILITY = ECGProtocol(
    "zero_shot_probability", "Zero-shot classification, probability among the classes", "auroc", None, True, True
)
LINEAR = ECGProtocol("linear", "Linear evaluation", "auroc")
FINE_TUNE = ECGProtocol("fine_tune", "Full fine-tuning", "auroc")


def zero_shot_with(prompts: str) -> ECGProtocol:
    """Zero-shot classification with prompts other than the model's, given by name or as the path of a YAML file."""
    stem = Path(prompts).stem
    return ECGProtocol(
        f"zero_shot_{safe_name(stem)}", f"Zero-shot classification, {stem} prompts", "auroc", prompts, zero_shot=True
    )
