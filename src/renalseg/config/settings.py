"""The settings of each part: intensity, networks, stages, cleaning, preparation, augmentation, training."""

import math
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Stage = Literal["coarse", "kidney", "lesion"]
STAGES: tuple[Stage, ...] = ("coarse", "kidney", "lesion")
Count = Annotated[int, Field(ge=1)]
Size3 = tuple[Count, Count, Count]


def _ascending(value: tuple[float, float]) -> tuple[float, float]:
    if not 0 < value[0] <= value[1]:
        raise ValueError("a range needs the lower limit first, both above 0")
    return value


Range = Annotated[tuple[float, float], AfterValidator(_ascending)]


class Frozen(BaseModel):
    """Settings that cannot change, and that know every name in them."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Intensity(Frozen):
    """HU to network input."""

    clip_hu: tuple[float, float] = Field((-200.0, 400.0), description="clip range in HU, scaled to [-1, 1]; paper 2.1")

    @model_validator(mode="after")
    def _ascending(self) -> "Intensity":
        if self.clip_hu[0] >= self.clip_hu[1]:
            raise ValueError("clip_hu needs the lower limit first")
        return self


class Network(Frozen):
    """One residual U-Net; sizes are (z, y, x), level 0 is the highest resolution."""

    classes: tuple[str, ...] = Field(description="output channels in order; paper 2.2")
    widths: tuple[Count, ...] = Field(description="channels of each level; settled (the paper gives none)")
    kernels: tuple[Size3, ...] = Field(description="convolution kernel of each level; settled")
    strides: tuple[Size3, ...] = Field(
        description="down-sampling into each level after the first; paper 3 steps, Fig. 2"
    )
    stem: Size3 = Field(
        (1, 1, 1), description="voxels a block that become channels first, back last; settled, off = (1, 1, 1)"
    )
    blocks: int = Field(1, ge=1, description="residual blocks of each encoder level; settled")
    dilations: tuple[int, ...] = Field((1,), description="parallel atrous branches of a block; ResUNet-a, off = (1,)")
    psp_bins: tuple[Count, ...] = Field((), description="PSP pooling bins at the bottleneck; ResUNet-a, off = ()")

    @model_validator(mode="after")
    def _levels_agree(self) -> "Network":
        if not len(self.widths) == len(self.kernels) == len(self.strides) + 1:
            raise ValueError("widths and kernels need one entry a level, strides one less")
        if any(k % 2 == 0 for kernel in self.kernels for k in kernel):
            raise ValueError("kernel sizes must be odd")
        if not self.dilations or min(self.dilations) < 1:
            raise ValueError("dilations need at least one entry, each 1 or more")
        return self

    @property
    def divisor(self) -> Size3:
        """By what each axis of the input has to be divisible."""
        z, y, x = (math.prod(s[axis] for s in (self.stem, *self.strides)) for axis in range(3))
        return z, y, x


class Coarse(Frozen):
    """The stage that finds the box round the kidneys."""

    shape: Size3 = Field(description="whole volume resampled to (z, y, x); paper 2.1: 128 x 128 x 128")
    threshold: float = Field(0.5, gt=0, lt=1, description="probability of kidney above which a voxel counts; settled")
    min_component_mm3: float = Field(
        20000.0, ge=0, description="smaller components of the coarse mask are dropped; measured, as clean.min_mm3"
    )
    margin_mm: tuple[float, float, float] = Field(
        (20.0, 20.0, 20.0),
        description="margin of the box on each side (z, y, x); settled, measured: under 10 mm loses kidney",
    )
    network: Network


class Fine(Frozen):
    """The two stages inside the box: kidney against background, and tumor and cyst against other kidney."""

    in_plane: tuple[int, int] = Field(
        description="ROI resampled in plane to (y, x), never along z; paper 2.1: 224 x 384"
    )
    window: int = Field(48, ge=1, description="slices a window; paper 2.1: 48")
    overlap: float = Field(0.5, ge=0, lt=1, description="share of a window that the next one repeats; settled")
    mirror_z: bool = Field(True, description="average with the prediction of the image mirrored along z; paper 2.3")
    kidney: Network
    lesion: Network


class Clean(Frozen):
    """Which connected components of the union of kidney, tumor and cyst survive."""

    min_voxels: int = Field(0, ge=0, description="in voxels of the original grid; paper 2.3: 10000")
    min_mm3: float = Field(
        0.0, ge=0, description="in mm3; measured: 20000; the smallest true kidney in 122 KiTS23 cases has 93 ml"
    )


class Preparation(Frozen):
    """How the regions that the fine stages learn from are cut."""

    roi: Literal["truth", "coarse"] = Field(
        "truth", description="box round the true kidneys, or the box that a coarse network finds; settled"
    )
    margin_jitter: Range = Field(
        (0.5, 1.5), description="true box: each side's margin is multiplied by a random factor of this range; settled"
    )


class Augmentation(Frozen):
    """Random changes of a training sample (paper 3.2), drawn anew each time; a probability of 0 turns one off."""

    mirror_z: float = Field(0.5, ge=0, le=1, description="probability of a mirror along z, as in testing; settled")
    mirror_x: float = Field(
        0.0, ge=0, le=1, description="probability of a mirror from right to left; settled, off: the paper has none"
    )
    scale: Range = Field((0.6, 1.3), description="random scale range, in plane; paper 3.2")
    scale_probability: float = Field(0.5, ge=0, le=1, description="how often scale, shift and turn apply; settled")
    rotate_degrees: float = Field(10.0, ge=0, description="random in-plane turn, either way; settled")
    shift: float = Field(0.05, ge=0, description="random in-plane shift, share of the size; settled")
    depth_crop: float = Field(
        1.0, gt=0, le=1, description="random share of the slices, at least this, stretched to all; 1 = off; settled"
    )
    depth_crop_probability: float = Field(0.5, ge=0, le=1, description="how often it is cropped so; settled")
    elastic_probability: float = Field(0.5, ge=0, le=1, description="of an elastic deformation; paper 3.2: 0.5")
    elastic_sigma: Range = Field((3.0, 5.0), description="smoothness of the deformation in voxels; paper 3.2: 3-5")
    elastic_magnitude: Range = Field((100.0, 200.0), description="its strength, as in MONAI; paper 3.2: 100-200")
    brightness: Range = Field((0.6, 1.5), description="factor on the distance from the window's lower end; paper 3.2")
    contrast: Range = Field((0.6, 1.5), description="factor on the distance from the mean; paper 3.2")
    gamma: Range = Field((0.6, 1.5), description="power on the window's [0, 1]; paper 3.2")
    intensity_probability: float = Field(0.5, ge=0, le=1, description="how often each of the three applies; settled")
    lesion_intensity_probability: float = Field(
        0.5, ge=0, le=1, description="how often each of the three applies inside tumors and cysts alone; settled"
    )
    noise: Range = Field((0.005, 0.12), description="standard deviation of added noise, where 2 is the window; settled")
    noise_probability: float = Field(
        0.0, ge=0, le=1, description="how often noise is added; settled, off: the paper has none"
    )


class Training(Frozen):
    """Training of one stage."""

    patch: Size3 = Field(description="training patch (z, y, x); paper tables 2 and 3")
    batch: int = Field(4, ge=1, description="cases a step, over all processes; paper tables 2 and 3: 4")
    epochs: int = Field(ge=1, description="passes over the training cases; paper: 300 coarse, 600 fine")
    learning_rate: float = Field(1e-4, gt=0, description="initial, cosine annealed to 0; paper tables 2 and 3: 1e-4")
    weight_decay: float = Field(1e-4, ge=0, description="AdamW; paper tables 2 and 3: 1e-4")
    dice_weight: float = Field(1.0, ge=0, description="weight of the Dice loss; settled (paper 2.2: summation)")
    ce_weight: float = Field(1.0, ge=0, description="weight of the cross-entropy; settled (paper 2.2: summation)")
    class_weights: tuple[float, ...] = Field(description="weight of each class in both losses; settled")
    hard_voxels: float = Field(
        0.25, gt=0, le=1, description="share of the voxels, the hardest, that cross-entropy counts; 1 = off; settled"
    )
    hard_cases: float = Field(
        0.2, ge=0, lt=1, description="share of the cases that an epoch leaves out, mostly easy ones; 0 = off; settled"
    )
    mixup_probability: float = Field(0.5, ge=0, le=1, description="of mixing a sample with another; 0 = off; settled")
    mixup_alpha: float = Field(0.2, gt=0, description="mixing weight from Beta(alpha, alpha); settled")
    paste_probability: float = Field(
        0.0, ge=0, le=1, description="of pasting a lesion of another case, where it has one; beyond the paper; 0 = off"
    )
    clip_norm: float = Field(12.0, gt=0, description="gradient norm is clipped to this; settled")
    ema: float = Field(
        0.0, ge=0, lt=1, description="decay a step of averaged weights, which are kept; 0 = off; settled"
    )
    compile: bool = Field(False, description="run the network through torch.compile; settled")
    ignore_beyond_mm: float = Field(
        5.0, ge=0, description="lesion stage: voxels farther than this from the true kidney do not count; settled"
    )
    augmentation: Augmentation = Augmentation()
    start_from: Literal["random", "kidney"] = Field(
        "random",
        description="lesion stage: kidney = the trained kidney network without its head; paper table 2: random",
    )
    validate_every: int = Field(10, ge=1, description="epochs between validations through the cascade; settled")
    seed: int = Field(12345, description="of initialisation, order and augmentation; settled")
