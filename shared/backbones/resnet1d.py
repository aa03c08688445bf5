"""ResNet for one-dimensional signals.

Shapes: B batch, C channels, T samples, D features.
"""

import torch.nn.functional as F
from torch import Tensor, nn


class BasicBlock1D(nn.Module):
    """Two convolutions of width 3 with a shortcut (He et al. 2016, Fig. 2, in one dimension)."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm1d(channels)
        self.conv2 = nn.Conv1d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm1d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv1d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm1d(channels)
            )

    def forward(self, x_BCT: Tensor) -> Tensor:
        """`(B, C, T) -> (B, C', T')`."""
        y_BCT = F.relu(self.bn1(self.conv1(x_BCT)), inplace=True)
        y_BCT = self.bn2(self.conv2(y_BCT))
        return F.relu(y_BCT + self.shortcut(x_BCT), inplace=True)


class ResNet1D(nn.Module):
    """ResNet18 with one-dimensional convolutions: `(B, C, T) -> (B, 8 width)`, averaged over time.

    The stem is one convolution of width 7 and stride 2 without max-pooling, as in MERL's ResNet18-1D; the four stages
    have `width, 2 width, 4 width, 8 width` channels and strides 1, 2, 2, 2. With 12 leads and width 64 it has 3.85 M
    parameters, and 5,000 samples become 313 positions. (ETP, section 3.2: "ResNet18-1D ... adapted from its
    two-dimensional version".)

    Args:
        in_channels: Number of channels of the signal.
        width: Number of channels of the first stage.
        layers: Number of blocks in each stage; the default is ResNet18's `[2, 2, 2, 2]`.

    Attributes:
        out_dim: D.

    Example:
        >>> import torch
        >>> encoder = ResNet1D(in_channels=12, width=8)
        >>> encoder(torch.randn(2, 12, 500)).shape
        torch.Size([2, 64])
        >>> encoder.features(torch.randn(2, 12, 500)).shape
        torch.Size([2, 64, 32])
    """

    def __init__(self, in_channels: int = 12, width: int = 64, layers: list[int] | None = None) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv1d(in_channels, width, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(inplace=True),
        )
        stages = []
        channels = width
        for stage, blocks in enumerate(layers or [2, 2, 2, 2]):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                stages.append(BasicBlock1D(channels, width * 2**stage, stride))
                channels = width * 2**stage
        self.stages = nn.Sequential(*stages)
        self.out_dim = channels
        for module in self.modules():
            if isinstance(module, nn.Conv1d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def features(self, x_BCT: Tensor) -> Tensor:
        """Features before pooling, `(B, D, T')`."""
        x_BCT = self.stages(self.stem(x_BCT))
        return x_BCT

    def forward(self, x_BCT: Tensor) -> Tensor:
        """Pooled features, `(B, D)`."""
        return self.features(x_BCT).mean(-1)
