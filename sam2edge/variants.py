"""Every SAM 2 model that sam2edge knows: ids, aliases, dimensions, where its weights come from.

Dimensions are those of the published configurations (SAM 2 and SAM 2.1, Apache-2.0); the parameter shapes of
all eight official checkpoints follow from them. `micro` is sam2edge's own embedded model.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from sam2edge.errors import UnknownModelError

EMBEDDED = "sam2.1_micro"
_FORMER_NAME = "sam2.1_hiera_micro"  # its trunk was a Hiera up to version 3


@dataclass(frozen=True)
class Checkpoint:
    """An official weight file: https address, SHA-256 (hex) and size in bytes.

    Where neither is known, `git_blob` is the id that git gives the file (`files.git_blob_id`), and the server tells the
    size. A file of which nothing is known cannot be pulled: whoever has it brings it.
    """

    url: str
    sha256: str | None = None
    size_bytes: int | None = None
    git_blob: str | None = None

    @property
    def digest(self) -> str | None:
        """What the file's bytes must give, with its kind: "SHA-256 ..." or "git blob ..."; None where nobody knows."""
        if self.sha256 is not None:
            return f"SHA-256 {self.sha256}"
        return None if self.git_blob is None else f"git blob {self.git_blob}"

    @property
    def file_name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Variant:
    """One model: its names, its dimensions, its checkpoint.

    Lengths are in channels or blocks, `window_sizes` in tokens of each trunk stage, `pos_embed_hw` in cells of the
    learned position grid, `image_size` in pixels (the side of the square model input). `trunk` is "hiera", "lite"
    (EfficientNet-Lite0), "repvit" (RepViT-M1) or "vit", which gives stride 16 alone; `trunk_dims` are the channels of
    its outputs where they are no multiples of `embed_dim`. `memory_latents` is 0 where a memory is the whole grid, else
    the tokens that a perceiver makes of it. `pooling`: "scores" or "keys" where memories are averaged over 2x2 cells
    before a frame attends to them, named after what is then raised by the four cells' weight (`PooledAttention`).
    `refine`: how masks are refined unless the caller says otherwise, as `ImagePredictor.segment_images` takes it.
    `everything`: least score and stability of a mask that `segment_everything` keeps unless the caller says otherwise.
    `weigh_by_stability`: each score is the predicted IoU times the mask's stability.
    """

    name: str
    release: str
    size: str
    embed_dim: int
    trunk_heads: int
    stages: tuple[int, int, int, int]
    global_blocks: tuple[int, ...]
    window_sizes: tuple[int, int, int, int] = (8, 4, 14, 7)
    pos_embed_hw: tuple[int, int] = (7, 7)
    d_model: int = 256
    decoder_heads: int = 8
    decoder_mlp_dim: int = 2048
    memory_dim: int = 64
    memory_layers: int = 4
    memory_mlp_dim: int = 2048
    num_mask_slots: int = 7
    image_size: int = 1024
    trunk: str = "hiera"
    trunk_dims: tuple[int, int, int, int] | None = None
    memory_latents: int = 0
    pooling: str = "none"
    refine: str = "none"
    everything: tuple[float, float] = (0.8, 0.95)
    weigh_by_stability: bool = False
    checkpoint: Checkpoint | None = None

    @property
    def model_id(self) -> str:
        """The short public id of the 2.1 weights ("sam2/hiera_tiny"), the release name for the others."""
        if self.name == EMBEDDED:
            return "sam2/micro"
        if self.release == "2.1":
            return f"sam2/hiera_{_SHORT.get(self.size, self.size)}"
        return self.name if self.release == "2.0" else f"sam2/{self.name}"

    @property
    def is_2_1(self) -> bool:
        """2.1 adds temporal positions to object pointers and an embedding for hidden objects in memory."""
        return self.release == "2.1"

    @property
    def has_high_res(self) -> bool:
        """Whether the mask decoder also gets features of strides 4 and 8."""
        return self.trunk != "vit"

    @property
    def image_size_step(self) -> int:
        """Pixels that an image size must be a multiple of: a perceiver reads 16 windows along each side."""
        return 256 if self.memory_latents else 32

    def memory_tokens(self, image_size: int) -> int:
        """Tokens of one remembered frame at an image size in pixels."""
        return self.memory_latents or (image_size // 16) ** 2

    @property
    def stage_dims(self) -> tuple[int, int, int, int]:
        """Channels of the trunk's outputs at strides 4, 8, 16, 32."""
        d = self.embed_dim
        return self.trunk_dims or (d, 2 * d, 4 * d, 8 * d)


_SHORT = {"base_plus": "b_plus"}
_BASE_URL = "https://dl.fbaipublicfiles.com/segment_anything_2"

# SHA-256 and bytes of the official files as several public projects pin them (micro-sam has all eight sums).
_PINNED = {
    "sam2_hiera_tiny": ("65b50056e05bcb13694174f51bb6da89c894b57b75ccdf0ba6352c597c5d1125", 155_906_050),
    "sam2_hiera_small": ("95949964d4e548409021d47b22712d5f1abf2564cc0c3c765ba599a24ac7dce3", 184_309_650),
    "sam2_hiera_base_plus": ("d0bb7f236400a49669ffdd1be617959a8b1d1065081789d7bbff88eded3a8071", 323_493_298),
    "sam2_hiera_large": ("7442e4e9b732a508f80e141e7c2913437a3610ee0c77381a66658c3a445df87b", 897_952_466),
    "sam2.1_hiera_tiny": ("7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69", 156_008_466),
    "sam2.1_hiera_small": ("6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38", 184_416_285),
    "sam2.1_hiera_base_plus": ("a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5", 323_606_802),
    "sam2.1_hiera_large": ("2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318", 898_083_611),
}

_SIZES = (
    Variant("", "", "tiny", 96, 1, (1, 2, 7, 2), (5, 7, 9)),
    Variant("", "", "small", 96, 1, (1, 2, 11, 2), (7, 10, 13)),
    Variant("", "", "base_plus", 112, 2, (2, 3, 16, 3), (12, 16, 20), pos_embed_hw=(14, 14)),
    Variant("", "", "large", 144, 2, (2, 6, 36, 4), (23, 33, 43), window_sizes=(8, 4, 16, 8)),
)

_MICRO = Variant(
    EMBEDDED,
    "2.1",
    "micro",
    embed_dim=24,
    trunk_heads=0,
    stages=(0, 0, 0, 0),
    global_blocks=(),
    trunk="lite",
    trunk_dims=(24, 40, 112, 320),
    refine="clean",
    everything=(0.4, 0.75),  # its scores are lower; by pictures of photos, of what shows objects and not pieces
    weigh_by_stability=True,
    d_model=128,
    decoder_heads=4,
    decoder_mlp_dim=512,
    memory_dim=32,
    memory_layers=2,
    memory_mlp_dim=256,
    image_size=384,
)

_EDGETAM = Variant(
    "edgetam",
    "edgetam",
    "edgetam",
    embed_dim=48,
    trunk_heads=0,
    stages=(2, 2, 14, 2),
    global_blocks=(),
    memory_layers=2,
    trunk="repvit",
    trunk_dims=(48, 96, 192, 384),
    memory_latents=512,
    checkpoint=Checkpoint(
        "https://github.com/facebookresearch/EdgeTAM/raw/main/checkpoints/edgetam.pt",
        git_blob="abd54d22bbd22ba3e53cf59a307e59e0f3701be6",
    ),
)


_EFFICIENTTAM_URL = "https://huggingface.co/yunyangx/efficient-track-anything/resolve/main"

# SHA-256 and bytes as public projects pin them (cuvis-ai-rtsam2 has these four). Of the files "_1" and "_2" none does.
_EFFICIENTTAM_PINNED = {
    "efficienttam_ti": ("acbb17b28cca1f860acee09c9ecb6efdb732080dc7a85a07292c31813175fa7d", 71_616_316),
    "efficienttam_s": ("2b572be30d9e96ee29c8d785fe157c6b079ede7d56fbc8a3671d4120e63c89cd", 136_375_868),
    "efficienttam_ti_512x512": ("7d4d652a465f0081391050932f45d8a66768ccc99c8ea393ce8a5927e83f3b9b", 71_620_052),
    "efficienttam_s_512x512": ("67b5840012737ed2c94a4cb8787c5c1b27b3a946045d2e602e65ef77230b6085", 136_379_145),
}


def _efficienttam(size: str, suffix: str) -> Variant:
    """Ti or S; a suffix is that of the published file."""
    name = f"efficienttam_{size}{suffix}"
    dim, heads = (192, 3) if size == "ti" else (384, 6)
    return Variant(
        name,
        "efficienttam",
        f"efficienttam_{size}",
        embed_dim=dim,
        trunk_heads=heads,
        stages=(0, 0, 12, 0),
        global_blocks=(2, 5, 8, 11),
        window_sizes=(0, 0, 14, 0),
        pos_embed_hw=(14, 14),
        image_size=512 if suffix == "_512x512" else 1024,
        trunk="vit",
        pooling={"_1": "scores", "_2": "keys"}.get(suffix, "none"),
        checkpoint=Checkpoint(f"{_EFFICIENTTAM_URL}/{name}.pt", *_EFFICIENTTAM_PINNED.get(name, ())),
    )


def _released(base: Variant, release: str) -> Variant:
    prefix, folder = ("sam2.1_hiera", "092824") if release == "2.1" else ("sam2_hiera", "072824")
    official = f"{prefix}_{base.size}"
    name = f"sam{release}_hiera_{base.size}"
    checkpoint = Checkpoint(f"{_BASE_URL}/{folder}/{official}.pt", *_PINNED[official])
    return replace(base, name=name, release=release, checkpoint=checkpoint)


_RELEASED = (_released(base, release) for release in ("2.1", "2.0") for base in _SIZES)
_EFFICIENTTAMS = (_efficienttam(size, suffix) for size in ("ti", "s") for suffix in ("", "_1", "_2", "_512x512"))
VARIANTS: dict[str, Variant] = {v.name: v for v in (_MICRO, _EDGETAM, *_EFFICIENTTAMS, *_RELEASED)}


# Variant, of `siblings` the first, by the SHA-256 of the sorted lines "name AxBxC", one for each parameter.
_FINGERPRINTS = {
    "be8beead177787680e43668e3d1cbc6f4d9dfa619d21148de253fac196c7a78f": "edgetam",
    "9f1527b619df57b371911874e357a78d978ac2f38722668c2fdac266a50fae4a": "efficienttam_ti",
    "ca987998055e10ff04f1a2d41d420e01dcd38b70da51e5fe6329e6b8fa6d8d98": "efficienttam_s",
    "fbc83150427a4847dce24b9b8de2f0f9c1532ac0d115af2c60038957eb6ffab1": "sam2.1_micro",
    "5a31f53548be1d302b6676cd6f9023a0673a98c87a7da656025d0ba4dbb85693": "sam2.1_hiera_tiny",
    "30f7030432d1687ed663f3af622cffa176ea66b099af2a801c326ce4cd821a96": "sam2.1_hiera_small",
    "cf1e236598a9fe861ef07265b59bda770809a8db7f5b0620a2ffe9ab38328a37": "sam2.1_hiera_base_plus",
    "b38bb6c453cb2b40ecb2a6f62046638d9cf30e9124bef55eae47a37a4eb636eb": "sam2.1_hiera_large",
    "8f656ac26e870b4134e0bfc8eacb2b7a826fb920fef1f48f267a23843a6c563c": "sam2.0_hiera_tiny",
    "7e5f9d3d6099de9e86d65a46b45e0ecb0bef2bd827f286ecd48c2fe0737f6172": "sam2.0_hiera_small",
    "0da3ee56516065b3f67621df5a1bd5f6377263c845e2d963df211affefe31d70": "sam2.0_hiera_base_plus",
    "11c4512af4a0183a874baf5d0f9973105237f96f4f6376b55bcb53f17ec3bb91": "sam2.0_hiera_large",
}


def siblings(variant: Variant) -> tuple[Variant, ...]:
    """The variants whose parameters have the same names and shapes, this one included."""
    return tuple(v for v in VARIANTS.values() if (v.release, v.size) == (variant.release, variant.size))


def recognise_shapes(shapes: Mapping[str, tuple[int, ...]]) -> Variant | None:
    """The variant whose parameters have exactly these names and shapes; of `siblings` the first."""
    lines = (f"{name} {'x'.join(map(str, shape))}" for name, shape in sorted(shapes.items()))
    name = _FINGERPRINTS.get(hashlib.sha256("\n".join(lines).encode()).hexdigest())
    return None if name is None else VARIANTS[name]


def _aliases() -> dict[str, str]:
    found: dict[str, str] = {}
    for variant in VARIANTS.values():
        short = _SHORT.get(variant.size, variant.size)
        names = {variant.name}
        if variant.name == EMBEDDED:
            names.add(_FORMER_NAME)
        if variant.release in ("2.0", "2.1"):
            names.add(f"sam{variant.release}_hiera_{short}")
        if variant.release == "2.1":
            names |= {f"hiera_{short}", f"hiera_{variant.size}", short, variant.size}
        if variant.release == "2.0":
            names.add(f"sam2_hiera_{variant.size}")
        found.update({form: variant.name for name in names for form in (name, f"sam2/{name}")})
    return found


ALIASES: dict[str, str] = _aliases()


def find_variant(model_id: str) -> Variant:
    """The variant that `model_id` names, whatever its case.

    Accepts "sam2/hiera_tiny" or "tiny" (the 2.1 weights), "sam2.0_hiera_tiny", "sam2.1_hiera_tiny", also behind
    "sam2/", and "b_plus" or "base_plus". Raises UnknownModelError with the closest id, or all of them.
    """
    wanted = str(model_id).strip().lower()
    name = ALIASES.get(wanted)
    if name is None:
        close = difflib.get_close_matches(wanted, ALIASES, n=1, cutoff=0.7)
        known = ", ".join(v.model_id for v in VARIANTS.values())
        raise UnknownModelError(
            "unknown model id",
            expected=f"one of {known}",
            got=repr(model_id),
            remedy=f"did you mean {VARIANTS[ALIASES[close[0]]].model_id}?" if close else "see `sam2edge models list`",
        )
    return VARIANTS[name]
