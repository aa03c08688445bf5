"""Per-sample batched augmentation of images `(B, C, H, W)`: every sample of a batch draws its own parameters.

Shapes: B batch, C channels, H x W source pixels, S output pixels. The draws come from torch's generator of the images'
device, which `shared.callbacks.SeedEachEpoch` seeds.
"""

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from shared.augment.base import Augmentation, checked_probability, checked_size

RotationFill = Literal["black", "reflection"]
BRIGHTNESS, CONTRAST, SATURATION = range(3)
TRIES = 10  # tries to find a crop that fits into the image, as in torchvision
SHARPEST = 1e-3  # pixels; a Gaussian this narrow changes nothing
CACHE_FLOATS = 262_144  # one megabyte of floats, which fits into a processor core's cache


class ImageParameters(NamedTuple):
    """The parameters that were drawn for every sample of a batch, one row each.

    Attributes:
        top: `(B,)` float32 first row of the crop, in pixels of the source.
        left: `(B,)` first column of the crop.
        height: `(B,)` number of rows of the crop.
        width: `(B,)` number of columns of the crop.
        flip: `(B,)` bool, whether the sample is mirrored left to right.
        angle: `(B,)` angle of the rotation in degrees, counter-clockwise about the centre; 0 does not rotate.
        sigma: `(B,)` standard deviation of the blur in pixels of the source; 0 does not blur.
        operation: `(B, K)` int64 colour operations, in order: 0 brightness, 1 contrast, 2 saturation.
        factor: `(B, K)` factors of these operations; 1 changes nothing.
    """

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    flip: Tensor
    angle: Tensor
    sigma: Tensor
    operation: Tensor
    factor: Tensor


def resize(images: Tensor, size: int) -> Tensor:
    """Images as an encoder takes them: `size` pixels square, float32 in [0, 1]; the resizing is antialiased bilinear.

    Args:
        images: `(B, C, H, W)` images, uint8, or float in [0, 1]. Images that are not square are squashed.
        size: Side of the output in pixels.

    Returns:
        `(B, C, size, size)` images; those that already have that size are only converted.

    Raises:
        ValueError: `images` has another type or shape.

    Example:
        >>> resize(torch.full((2, 3, 300, 300), 255, dtype=torch.uint8), 128).shape
        torch.Size([2, 3, 128, 128])
    """
    images = _to_unit(images)
    if images.shape[2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True)


class ImageAugment(Augmentation):
    r"""Random crop, flip, blur, colour jitter, greyscale and rotation, as used by contrastive methods on images.

    Each operation is that of torchvision with the same name (`RandomResizedCrop`, `RandomHorizontalFlip`,
    `GaussianBlur`, `ColorJitter` without hue, `RandomGrayscale`, `RandomRotation` with bilinear interpolation), but
    drawn for each sample. The defaults are MMCL's for DVM: those of the authors' code, which the paper's supplement
    describes.

    Blur, crop, antialiased resize and flip are linear and separate into rows and columns, so a sample's whole chain is

    .. math:: W_y \, x \, W_x^\top, \quad W_y \in R^{S \times H}, \; W_x \in R^{S \times W}

    and that of a batch is two batched matrix products. A row of :math:`W_y` is the resize's triangle filter inside the
    crop, times the (band) matrix of the blur; flipping reverses :math:`W_x`. This is exact, borders included.

    The authors' order is jitter, greyscale, blur, crop, flip; for cardiac images flip, rotation, jitter, crop.
    Flipping last gives the same distribution, as angles and crops are drawn symmetrically. With `exact_order` colours
    are changed at the source's resolution, after rotation and before the blur, as in the authors' code. By default they
    are changed after the crop, on S x S pixels, which is several times as fast. The mean grey that contrast needs is
    still that of the whole source, taken through the same operations, so the two orders agree up to rounding as long as
    no operation clamps a value to [0, 1]; if one does, a pixel may differ.

    Args:
        size: Side S of the output in pixels.
        crop_scale: Smallest and largest area of the crop, as a share of the image's area.
        crop_ratio: Smallest and largest width / height of the crop.
        flip: Probability that a sample is mirrored.
        rotation: Largest angle in degrees; angles are drawn from U(-rotation, rotation).
        rotation_fill: What lies outside a rotated image: `black`, or its `reflection`, for images that are rotated
            in training only, where black corners would tell the two apart.
        brightness: Strength of the change of brightness; its factor is drawn from U(max(0, 1 - brightness),
            1 + brightness).
        contrast: Strength of the change of contrast about the mean grey of the image, in the same way.
        saturation: Strength of the change of saturation about the grey of each pixel, in the same way.
        jitter_probability: Probability that these three are changed, in random order.
        grayscale: Probability that a sample is made grey.
        blur_probability: Probability that a sample is blurred.
        blur_sigma: Smallest and largest standard deviation of the blur, in pixels of the source.
        blur_kernel: Width of the blur's kernel in pixels; it must be odd.
        probability: Probability that a sample is augmented at all; the others are only resized.
        exact_order: Whether colours are changed in the authors' order, see above.

    Raises:
        ValueError: A setting is out of its range; or, when called, the images are not `(B, C, H, W)` of uint8 or float,
            are too small for the blur, or have no colour (C other than 3) while `saturation` or `grayscale` is on.

    Example:
        >>> augment = ImageAugment(size=32)
        >>> views = augment(torch.randint(256, (4, 3, 75, 100), dtype=torch.uint8))
        >>> views.shape, views.dtype
        (torch.Size([4, 3, 32, 32]), torch.float32)
    """

    def __init__(
        self,
        size: int = 128,
        crop_scale: tuple[float, float] = (0.08, 1.0),
        crop_ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: float = 0.5,
        rotation: float = 0.0,
        rotation_fill: RotationFill = "black",
        brightness: float = 0.8,
        contrast: float = 0.8,
        saturation: float = 0.8,
        jitter_probability: float = 0.8,
        grayscale: float = 0.2,
        blur_probability: float = 0.5,
        blur_sigma: tuple[float, float] = (0.1, 2.0),
        blur_kernel: int = 29,
        probability: float = 0.95,
        exact_order: bool = False,
    ) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        if blur_kernel < 1 or blur_kernel % 2 == 0:
            raise ValueError(f"blur_kernel must be odd and at least 1, got {blur_kernel}")
        if not 0 <= rotation <= 180:
            raise ValueError(f"rotation must be in [0, 180], got {rotation}")
        self.size = size
        self.crop_scale = _range("crop_scale", crop_scale)
        if self.crop_scale[1] > 1:
            raise ValueError(f"crop_scale must be at most 1, the whole image, got {crop_scale[1]}")
        self.crop_ratio = _range("crop_ratio", crop_ratio)
        self.flip = checked_probability("flip", flip)
        self.rotation = rotation
        self.rotation_fill = rotation_fill
        self.brightness = checked_size("brightness", brightness)
        self.contrast = checked_size("contrast", contrast)
        self.saturation = checked_size("saturation", saturation)
        self.jitter_probability = checked_probability("jitter_probability", jitter_probability)
        self.grayscale = checked_probability("grayscale", grayscale)
        self.blur_probability = checked_probability("blur_probability", blur_probability)
        self.blur_sigma = _range("blur_sigma", blur_sigma)
        self.blur_kernel = blur_kernel
        self.probability = checked_probability("probability", probability)
        self.exact_order = exact_order

    def forward(self, images: Tensor) -> Tensor:
        """`(B, C, H, W)` uint8, or float in [0, 1], to `(B, C, S, S)` float32 in [0, 1]."""
        self._check(images)
        return self.apply_drawn(images, self.draw(images))

    def draw(self, images: Tensor, generator: torch.Generator | None = None) -> ImageParameters:
        """Draw the parameters for every sample of `(B, C, H, W)`.

        Args:
            images: The images.
            generator: Draws on its own device; by default that of the images' device draws.
        """
        batch, device = len(images), generator.device if generator else images.device

        def happens(probability: float) -> Tensor:
            return torch.rand(batch, device=device, generator=generator) < probability

        def uniform(low: float, high: float) -> Tensor:
            return torch.empty(batch, device=device).uniform_(low, high, generator=generator)

        applied = happens(self.probability)
        top, left, height, width = _draw_crop(images.shape, device, self.crop_scale, self.crop_ratio, generator)
        strengths = (self.brightness, self.contrast, self.saturation)
        factor = torch.stack([uniform(max(0.0, 1 - strength), 1 + strength) for strength in strengths], dim=1)
        factor = factor.where((applied & happens(self.jitter_probability))[:, None], 1)
        order = torch.rand(batch, len(strengths), device=device, generator=generator).argsort(dim=1)
        grey = applied & happens(self.grayscale)  # saturation 0, after the others
        drawn = ImageParameters(
            top=top.where(applied, 0),
            left=left.where(applied, 0),
            height=height.where(applied, images.shape[2]),
            width=width.where(applied, images.shape[3]),
            flip=applied & happens(self.flip),
            angle=uniform(-self.rotation, self.rotation).where(applied, 0),
            sigma=uniform(*self.blur_sigma).where(applied & happens(self.blur_probability), 0),
            operation=F.pad(order, (0, 1), value=SATURATION),
            factor=torch.cat([factor.gather(1, order), 1 - grey[:, None].float()], dim=1),
        )
        return ImageParameters(*(values.to(images.device) for values in drawn))

    def apply_drawn(self, images: Tensor, drawn: ImageParameters) -> Tensor:
        """Augment `images` with these parameters, as `forward` does with drawn ones."""
        with torch.autocast(images.device.type, enabled=False):  # products in half precision would show
            if images.device.type != "cpu":
                return self._augmented(images, drawn)
            # A few at a time: their float copies fit into the processor's cache, those of a whole batch do not.
            count = max(1, CACHE_FLOATS // math.prod(images.shape[1:]))
            parts = zip(images.split(count), *(values.split(count) for values in drawn), strict=True)
            return torch.cat([self._augmented(part, ImageParameters(*values)) for part, *values in parts])

    def _augmented(self, images: Tensor, drawn: ImageParameters) -> Tensor:
        x = _to_unit(images)
        if self.rotation:
            x = rotate(x, drawn.angle, self.rotation_fill)
        if self.exact_order:
            x = change_colours(x, drawn.operation, drawn.factor)
        mean = _grey(x.mean((2, 3), keepdim=True))
        x = self._resample(*self._window(x, drawn))
        if not self.exact_order:
            x = change_colours(x, drawn.operation, drawn.factor, mean)
        return x.clamp_(0, 1)  # removes rounding errors

    def _window(self, x: Tensor, drawn: ImageParameters) -> tuple[Tensor, ImageParameters]:
        """For a single sample, only the part of the source that its crop sees, which halves the arithmetic.

        For several samples, and on a GPU, where the host would have to wait for the bounds, the whole source.
        """
        if x.device.type != "cpu" or len(x) > 1:
            return x, drawn
        margin = self.blur_kernel // 2 if drawn.sigma.any() else 0
        top, left = (max(int(start) - margin, 0) for start in (drawn.top, drawn.left))
        bottom, right = int(drawn.top + drawn.height) + margin, int(drawn.left + drawn.width) + margin
        return x[:, :, top:bottom, left:right], drawn._replace(top=drawn.top - top, left=drawn.left - left)

    def _resample(self, x: Tensor, drawn: ImageParameters) -> Tensor:
        rows = resize_matrix(drawn.top, drawn.height, x.shape[2], self.size)
        columns = resize_matrix(drawn.left, drawn.width, x.shape[3], self.size, drawn.flip)
        if self.blur_probability and _may_be_any(drawn.sigma != 0):
            rows = rows @ blur_matrix(drawn.sigma, x.shape[2], self.blur_kernel)
            columns = columns @ blur_matrix(drawn.sigma, x.shape[3], self.blur_kernel)
        return rows[:, None] @ (x @ columns[:, None].mT)

    def _check(self, images: Tensor) -> None:
        _check_images(images)
        channels, height, width = images.shape[1:]
        if channels != 3 and (self.saturation or self.grayscale):
            raise ValueError(f"saturation and grayscale need images of 3 channels (RGB), got {channels}: set both to 0")
        if self.blur_probability and min(height, width) <= self.blur_kernel // 2:
            raise ValueError(
                f"a blur_kernel of {self.blur_kernel} needs images of more than {self.blur_kernel // 2} pixels, got "
                f"{height} x {width}: choose a smaller blur_kernel, or set blur_probability to 0"
            )


def resize_matrix(start: Tensor, extent: Tensor, length: int, size: int, flip: Tensor | None = None) -> Tensor:
    r"""The matrix that crops one axis and resizes the crop, antialiased.

    Output pixel i looks at :math:`c_i = start + s (i + 1/2)` with :math:`s = extent / size`; source pixel j inside the
    crop weighs :math:`\max(0, 1 - |j + 1/2 - c_i| / \max(1, s))`, and the weights of i sum to 1.

    Args:
        start: `(B,)` first pixel of the crop.
        extent: `(B,)` number of pixels of the crop.
        length: Number of pixels of the source.
        size: Number of pixels of the output.
        flip: `(B,)` bool, whether a sample's output is reversed.

    Returns:
        `(B, size, length)` matrices.
    """
    start, extent = start[:, None, None], extent[:, None, None]
    target = torch.arange(0.5, size, device=start.device)[:, None]
    if flip is not None:
        target = torch.where(flip[:, None, None], size - target, target)
    source = torch.arange(0.5, length, device=start.device)
    scale = extent / size
    distance = (source - (start + scale * target)).abs_()
    weight = (1 - distance / scale.clamp(min=1)).clamp_(min=0)
    weight *= (source > start) & (source < start + extent)
    return weight / weight.sum(2, keepdim=True)


def blur_matrix(sigma: Tensor, length: int, kernel: int) -> Tensor:
    """The matrix that blurs one axis with a Gaussian; the signal is reflected at its ends.

    Args:
        sigma: `(B,)` standard deviation in pixels; 0 gives the identity.
        length: Number of pixels of the axis; it must be more than `kernel // 2`.
        kernel: Number of pixels of the Gaussian, which is normalised over them; it must be odd.

    Returns:
        `(B, length, length)` matrices.
    """
    offset = torch.arange(kernel, device=sigma.device) - kernel // 2
    gaussian = (-0.5 * (offset / sigma[:, None].clamp(min=SHARPEST)) ** 2).softmax(dim=1)
    source = (torch.arange(length, device=sigma.device)[:, None] + offset).abs_()
    source = length - 1 - (length - 1 - source).abs_()
    shape = (len(sigma), length, kernel)
    matrix = torch.zeros(len(sigma), length, length, device=sigma.device)
    return matrix.scatter_add_(2, source.expand(shape), gaussian[:, None].expand(shape))


def change_colours(images: Tensor, operation: Tensor, factor: Tensor, mean: Tensor | None = None) -> Tensor:
    """Change brightness, contrast and saturation of each sample in its own order, clamping to [0, 1] after each.

    All three blend with a grey image, `factor * x + (1 - factor) * other`: black for brightness, the mean grey for
    contrast, and every pixel's own grey for saturation.

    Args:
        images: `(B, C, H, W)` images in [0, 1].
        operation: `(B, K)` operations in {0: brightness, 1: contrast, 2: saturation}, in the order of application.
        factor: `(B, K)` factors, at least 0; 1 changes nothing.
        mean: `(B, 1, 1, 1)` mean grey for contrast before the first operation, which is then updated without clamping;
            by default the mean grey of the images is measured again before each operation.
    """
    images = images.clone()
    for kinds, factors in zip(operation.unbind(1), factor.unbind(1), strict=True):
        if not _may_be_any(factors != 1):
            continue
        kind, weight = kinds[:, None, None, None], factors[:, None, None, None]
        grey = _grey(images)
        centre = grey.mean((2, 3), keepdim=True) if mean is None else mean
        other = torch.where(kind == SATURATION, grey, centre * (kind == CONTRAST))
        images.lerp_(other, 1 - weight).clamp_(0, 1)
        if mean is not None:
            mean = torch.where(kind == BRIGHTNESS, mean * weight, mean).clamp_(max=1)
    return images


def rotate(images: Tensor, angle: Tensor, fill: RotationFill = "black") -> Tensor:
    """Rotate each sample of `(B, C, H, W)` about its centre, with bilinear interpolation.

    Args:
        images: Float images.
        angle: `(B,)` angles in degrees, counter-clockwise.
        fill: What lies outside the image.
    """
    height, width = images.shape[2:]
    cos, sin = angle.deg2rad().cos(), angle.deg2rad().sin()
    zero = torch.zeros_like(cos)
    # The grid's coordinates run from -1 to 1 along either axis, hence the ratios.
    rows = [cos, -sin * height / width, zero, sin * width / height, cos, zero]
    theta = torch.stack(rows, dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    padding = "zeros" if fill == "black" else "reflection"
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=False)


def _draw_crop(
    images: torch.Size,
    device: torch.device,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Top, left, height and width of a crop for each sample: the first of several tries that fits, or the centre."""
    batch, _, rows, columns = images
    shape, logs = (batch, TRIES), (math.log(ratio[0]), math.log(ratio[1]))
    area = torch.empty(shape, device=device).uniform_(*scale, generator=generator) * (rows * columns)
    aspect = torch.empty(shape, device=device).uniform_(*logs, generator=generator).exp_()
    width, height = (area * aspect).sqrt_().round_(), (area / aspect).sqrt_().round_()
    fits = (width > 0) & (width <= columns) & (height > 0) & (height <= rows)
    first = fits.int().argmax(dim=1, keepdim=True)
    found = fits.any(dim=1)
    central_ratio = min(max(columns / rows, ratio[0]), ratio[1])
    central_width, central_height = min(columns, round(rows * central_ratio)), min(rows, round(columns / central_ratio))
    width = width.gather(1, first).squeeze(1).where(found, central_width)
    height = height.gather(1, first).squeeze(1).where(found, central_height)
    top, left = (
        torch.where(
            found,
            (torch.rand(batch, device=device, generator=generator) * (room + 1)).floor_(),
            (room / 2).floor_(),
        )
        for room in (rows - height, columns - width)
    )
    return top, left, height, width


def _grey(images: Tensor) -> Tensor:
    """`(B, C, H, W)` to `(B, 1, H, W)`: the luma of RGB images, otherwise the mean of the channels."""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    red, green, blue = images.split(1, dim=1)
    grey: Tensor = 0.2989 * red
    return grey.add_(green, alpha=0.587).add_(blue, alpha=0.114)


def _may_be_any(condition: Tensor) -> bool:
    """Whether any element is true; on a GPU, for which the host would have to wait, always True."""
    return condition.device.type != "cpu" or bool(condition.any())


def _to_unit(images: Tensor) -> Tensor:
    _check_images(images)
    x = images.to(torch.float32)
    return x.div_(255) if images.dtype == torch.uint8 else x


def _check_images(images: Tensor) -> None:
    if images.ndim != 4 or not (images.dtype == torch.uint8 or images.is_floating_point()):
        raise ValueError(
            f"images must be (B, C, H, W) of uint8, or of float in [0, 1], got {tuple(images.shape)} of {images.dtype}"
        )


def _range(name: str, limits: tuple[float, float]) -> tuple[float, float]:
    low, high = limits
    if not 0 < low <= high < math.inf:
        raise ValueError(f"{name} must be two numbers with 0 < low <= high, got {low} and {high}")
    return low, high
