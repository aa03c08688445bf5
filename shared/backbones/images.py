"""Image encoders from timm.

Shapes: B batch, C channels, H x W pixels, D features.
"""

from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from shared.augment import resize
from shared.backbones.weights import load_weights

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of RGB in [0, 1]
STAGES = 4  # of a ResNet
# With fewer, the gradient of a strided 1 x 1 convolution in channels-last writes beyond its memory (torch 2.14, CPU).
FEWEST_CHANNELS = 8


class ImageEncoder(nn.Module):
    """An image network of timm without its classifier: `(B, C, H, W) -> (B, D)`, pooled.

    The default is MMCL's: a ResNet50 with the stem of width 7, whose global average pooling gives 2,048 features
    (MMCL, section 4.2).

    Args:
        name: timm's name of the architecture.
        in_channels: Channels of the images.
        image_px: Pixels to which uint8 images are resized.
        layers: Number of blocks in each stage, instead of the architecture's; only for a ResNet.
        channels: Width of each stage, instead of the architecture's; only for a ResNet.
        stem_width: Width of a stem of three 3 x 3 convolutions, instead of the 7 x 7 one with 64 channels; only for a
            ResNet. With `layers` and `channels` it makes an encoder small enough for a laptop, where the wide stem
            takes most of the time.
        weights: Weights under timm's names: a local file, a folder that timm has saved, or `hf_hub:<owner>/<model>`,
            see `load_weights`; None leaves them random. A checkpoint holds the weights, and needs none of these.

    Attributes:
        out_dim: D.

    Raises:
        ValueError: timm has no such architecture; the architecture does not take `layers`, `channels` or `stem_width`;
            one of the first two does not hold four numbers; a stage has fewer than 8 channels; or see `load_weights`.

    Example:
        >>> encoder = ImageEncoder("resnet18", image_px=64, layers=[1, 1, 1, 1], channels=[8, 16, 32, 64])
        >>> encoder(torch.randint(256, (2, 3, 75, 100), dtype=torch.uint8)).shape  # as stored: resized, in [0, 1]
        torch.Size([2, 64])
        >>> encoder(torch.rand(2, 3, 64, 64)).shape  # as augmented
        torch.Size([2, 64])
    """

    machine_arguments = ("weights",)  # a checkpoint holds them itself
    net: Any  # timm's models say their widths in attributes that nn.Module does not know

    def __init__(
        self,
        name: str = "resnet50",
        in_channels: int = 3,
        image_px: int = 128,
        layers: list[int] | None = None,
        channels: list[int] | None = None,
        stem_width: int | None = None,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        import timm  # takes seconds, which a package without images need not spend

        # Also keeps out the names that timm would look up on a hub.
        if not timm.is_model(name):
            similar = get_close_matches(name, timm.list_models(), n=1)
            hint = f"did you mean {similar[0]}?" if similar else "timm.list_models() lists them"
            raise ValueError(f"timm has no architecture {name!r}; {hint}")
        sizes = {"layers": layers, "channels": channels, "stem_width": stem_width}
        given: dict[str, Any] = {key: value for key, value in sizes.items() if value is not None}
        if timm.models.is_model_in_modules(name, ["resnet"]):
            # As torchvision's, which the papers use: timm would start every block as the identity.
            given["zero_init_last"] = False
        elif given:
            raise ValueError(f"{name} does not take {' and '.join(given)}, which are for a ResNet")
        if any(values is not None and len(values) != STAGES for values in (layers, channels)):
            raise ValueError(
                f"layers and channels need {STAGES} numbers, one for each stage, got {layers} and {channels}"
            )
        if channels is not None and min(channels) < FEWEST_CHANNELS:
            raise ValueError(f"channels must be at least {FEWEST_CHANNELS} in every stage, got {channels}")
        if stem_width is not None:
            given["stem_type"] = "deep"
        self.net = timm.create_model(name, pretrained=False, in_chans=in_channels, num_classes=0, **given)
        if weights is not None:
            load_weights(self.net, weights)
        # Convolutions are 1.5 to 2 times as fast on a CPU in this layout, and tensor cores want it too.
        self.net = self.net.to(memory_format=torch.channels_last)
        self.image_px = image_px
        # Not num_features: some architectures have a layer after the pooling.
        self.out_dim = int(self.net.head_hidden_size)

    @property
    def stage(self) -> nn.Module:
        """The last stage, whose output `(B, D, H', W')` Grad-CAM looks at; `layer4` of a ResNet."""
        module: nn.Module = self.net.get_submodule(self.net.feature_info[-1]["module"])
        return module

    def forward(self, x: Tensor) -> Tensor:
        """Pooled features `(B, D)` of uint8 images of any size, or of float images in [0, 1], taken as they are."""
        if x.dtype == torch.uint8:
            x = resize(x, self.image_px)
        features: Tensor = self.net(x.contiguous(memory_format=torch.channels_last))
        return features


class Pixels(nn.Module):
    """No network at all: an image averaged over a grid of cells, `(B, C, H, W) -> (B, C * cells^2)`.

    A linear classifier on it is a floor for every image encoder.

    Args:
        in_channels: Channels of the images.
        cells: Cells along each side.

    Attributes:
        out_dim: Number of features.

    Example:
        >>> Pixels(1, cells=2)(torch.tensor([[[[0, 255], [255, 0]]]], dtype=torch.uint8))
        tensor([[0., 1., 1., 0.]])
    """

    def __init__(self, in_channels: int = 3, cells: int = 16) -> None:
        super().__init__()
        self.cells = cells
        self.out_dim = in_channels * cells**2

    def forward(self, x: Tensor) -> Tensor:
        """Features of uint8 images, or of float images in [0, 1]."""
        values = x.float() / 255 if x.dtype == torch.uint8 else x
        return nn.functional.adaptive_avg_pool2d(values, self.cells).flatten(1)
