"""Meta-Learner LSTM (Ravi and Larochelle 2017): an LSTM whose cell is the learner's parameters.

Shapes: n support and m query images, N ways, P parameters of the learner, h units.
"""

import math
from functools import partial

import torch
import torch.nn.functional as F
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn

from meta_robust.adapt import Parameters, class_weight
from meta_robust.methods.episodic import TaskClassifier, TaskImages
from meta_robust.methods.maml import MAML

P_OF_PREPROCESSING = 10.0


def preprocess(x: Tensor) -> Tensor:
    r"""Magnitude and sign of numbers of any scale (Andrychowicz et al. 2016, appendix A), `(...,)` to `(..., 2)`.

    .. math:: (\log|x| / p, \; \mathrm{sgn}\,x) \text{ if } |x| \ge e^{-p}, \quad (-1, \; e^p x) \text{ otherwise}

    Example:
        >>> preprocess(torch.tensor([0.0, -1.0]))
        tensor([[-1.,  0.],
                [ 0., -1.]])
    """
    large = x.abs() >= math.exp(-P_OF_PREPROCESSING)
    first = torch.where(large, x.abs().clamp(min=1e-30).log() / P_OF_PREPROCESSING, -1)
    second = torch.where(large, x.sign(), math.exp(P_OF_PREPROCESSING) * x)
    return torch.stack([first, second], dim=-1)


class Updater(nn.Module):
    """The meta-learner: one LSTM for all P coordinates, and gates that forget a parameter and move it.

    Args:
        units: h.
    """

    def __init__(self, units: int = 20) -> None:
        super().__init__()
        self.lstm = nn.LSTMCell(4, units)
        self.forget, self.rate = nn.Linear(units + 2, 1), nn.Linear(units + 2, 1)
        for layer in (*self.lstm.parameters(), self.forget.weight, self.rate.weight):
            nn.init.uniform_(layer, -0.01, 0.01)
        nn.init.uniform_(self.forget.bias, 4, 5)  # at first hardly anything is forgotten ...
        nn.init.uniform_(self.rate.bias, -5, -4)  # ... and the steps are small (section 3.3)

    def forward(self, x: Tensor, parameters: Tensor, gradient: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        r"""One step :math:`c_t = f_t \odot c_{t-1} - i_t \odot \nabla L` (Ravi and Larochelle, Eqs. 2 to 5).

        Args:
            x: `(P, 4)` preprocessed loss and gradient.
            parameters: `(P,)` :math:`c_{t-1}`.
            gradient: `(P,)`.
            state: Of the LSTM, hidden and cell `(P, h)`, then the gates of the last step, f and i `(P, 1)`.

        Returns:
            The parameters and the state after the step.
        """
        hidden, cell = self.lstm(x, (state[0], state[1]))
        before = parameters[:, None]
        forget = torch.sigmoid(self.forget(torch.cat([hidden, before, state[2]], 1)))
        rate = torch.sigmoid(self.rate(torch.cat([hidden, before, state[3]], 1)))
        return forget[:, 0] * parameters - rate[:, 0] * gradient, hidden, cell, forget, rate


class MetaLearnerLSTM(MAML):
    """Learns how to update, and where to start; the learner's gradients are taken for constants (section 3.3).

    Args:
        encoder: `(B, 3, S, S) -> (B, encoder.out_dim)`; the learner, with a linear head.
        optimizer: Makes the optimiser.
        ways: N.
        shots: K.
        queries: Q.
        steps: Updates of the learner, in training and on new tasks (section 5.1.1: 12 for one shot, 5 for five).
        units: h.
        clip: Largest norm of the meta-gradient.
        augment: Changes every training image on its own.
    """

    title = "Meta-Learner LSTM"

    def __init__(
        self,
        encoder: nn.Module,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3),
        ways: int = 5,
        shots: int = 1,
        queries: int = 15,
        steps: int = 12,
        units: int = 20,
        clip: float = 0.25,
        augment: nn.Module | None = None,
    ) -> None:
        super().__init__(encoder, optimizer, ways, shots, queries, inner_steps=steps, test_steps=steps, augment=augment)
        self.updater = Updater(units)
        self.clip = clip

    def learned(self, start: Parameters, images: Tensor, labels: Tensor) -> Parameters:
        """The learner's parameters after all updates on a support set."""
        shapes = {name: value.shape for name, value in start.items()}

        def unpacked(flat: Tensor) -> Parameters:
            parts = flat.split([shape.numel() for shape in shapes.values()])
            return {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}

        flat = torch.cat([value.flatten() for value in start.values()])
        units = self.updater.lstm.hidden_size
        state = (flat.new_zeros(len(flat), units),) * 2 + (flat.new_zeros(len(flat), 1),) * 2
        for _ in range(self.inner_steps):
            here = flat.detach().requires_grad_()
            logits = self.forward_with(unpacked(here), images)
            loss = F.cross_entropy(logits, labels, class_weight(labels, logits))
            (gradient,) = torch.autograd.grad(loss, here)
            x = torch.cat([preprocess(loss.detach()).expand(len(flat), 2), preprocess(gradient)], 1)
            flat, *rest = self.updater(x, flat, gradient, state)
            state = tuple(rest)
        return unpacked(flat)

    def task_loss(self, task: TaskImages) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the queries under the learned parameters."""
        learned = self.learned(self.start(self.shape.ways), task.support, task.support_label)
        logits = self.forward_with(learned, task.query)
        return F.cross_entropy(logits, task.query_label), logits

    def outer_gradients(self, gradients: list[Tensor]) -> list[Tensor]:
        """Scaled down to the norm `clip`, if theirs is larger."""
        norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
        return [gradient * (self.clip / norm.clamp(min=self.clip)) for gradient in gradients]

    def task_classifier(self, support: Tensor, labels: Tensor, ways: int) -> TaskClassifier:
        """See `EpisodicMethod.task_classifier`."""
        with torch.enable_grad():
            start = {name: value.detach() for name, value in self.start(ways).items()}
            learned = self.learned(start, support, labels)
        found = {name: value.detach() for name, value in learned.items()}
        return partial(self.predict_with, found, support)
