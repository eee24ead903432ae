"""Coloured shapes and their captions, and a CLIP of 32 pixels that learns to match them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra embeddb[image]")
transformers = pytest.importorskip("transformers", reason="needs the extra embeddb[image]")

SIZE: Final = 32
PADDING: Final = "<pad>"
UNKNOWN: Final = "<unk>"
COLOURS: Final = {
    "red": (220, 40, 40),
    "green": (40, 190, 60),
    "blue": (50, 70, 220),
    "yellow": (225, 215, 50),
    "purple": (160, 50, 190),
    "white": (240, 240, 240),
    "orange": (240, 130, 30),
    "cyan": (50, 210, 210),
    "grey": (120, 120, 120),
}
SHAPES: Final = ("circle", "square", "triangle", "cross", "ring", "bar")
SIZES: Final = {"small": 5, "large": 11}
Combination = tuple[str, str, str]


def combinations() -> list[Combination]:
    """Size, colour and shape, 108 of them."""
    return list(itertools.product(SIZES, COLOURS, SHAPES))


def unseen() -> list[Combination]:
    """20 that are kept from training, though each of their words is seen there."""
    kept = combinations()
    return [kept[place] for place in np.random.default_rng(3).permutation(len(kept))[:20]]


def caption(combination: Combination) -> str:
    """In words."""
    size, colour, shape = combination
    return f"a {size} {colour} {shape}"


def draw(combination: Combination, rng: np.random.Generator) -> Any:
    """An image of it, somewhere, on a dark background with noise."""
    from PIL import Image, ImageDraw

    size, colour, shape = combination
    radius = SIZES[size] + int(rng.integers(-1, 2))
    x, y = rng.integers(radius + 1, SIZE - radius, 2).tolist() if radius < 15 else (16, 16)
    fill = tuple(int(np.clip(value + rng.normal(0, 15), 0, 255)) for value in COLOURS[colour])
    image = Image.new("RGB", (SIZE, SIZE), (20, 20, 20))
    pen = ImageDraw.Draw(image)
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == "circle":
        pen.ellipse(box, fill=fill)
    elif shape == "square":
        pen.rectangle(box, fill=fill)
    elif shape == "triangle":
        pen.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill=fill)
    elif shape == "cross":
        arm = max(1, radius // 3)
        pen.rectangle((x - radius, y - arm, x + radius, y + arm), fill=fill)
        pen.rectangle((x - arm, y - radius, x + arm, y + radius), fill=fill)
    elif shape == "bar":
        pen.rectangle((x - radius, y - radius // 4 - 1, x + radius, y + radius // 4 + 1), fill=fill)
    else:
        pen.ellipse(box, outline=fill, width=max(2, radius // 3))
    noisy = np.asarray(image, float) + rng.normal(0, 8, (SIZE, SIZE, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def save_clip(folder: Path, *, steps: int) -> None:
    """A CLIP, trained for so many steps on combinations that are not ``unseen``, with its processors."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    words = [PADDING, "<s>", "</s>", UNKNOWN, "a", *SIZES, *COLOURS, *SHAPES]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=8, pad_token=PADDING, unk_token=UNKNOWN
    ).save_pretrained(folder)
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": SIZE},
        crop_size={"height": SIZE, "width": SIZE},
        image_mean=[0.3, 0.3, 0.3],
        image_std=[0.3, 0.3, 0.3],
    )
    processor.save_pretrained(folder)
    shape: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.CLIPConfig(
        text_config={
            "vocab_size": len(words),
            "max_position_embeddings": 8,
            "intermediate_size": 128,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            **shape,
        },
        vision_config={"image_size": SIZE, "patch_size": 8, "intermediate_size": 128, **shape},
        projection_dim=32,
    )
    torch.manual_seed(0)
    model = transformers.CLIPModel(config)
    # As initialised for models of a thousand times the size, signals hardly pass.
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "layers" in name:
                torch.nn.init.xavier_uniform_(parameter)
    _train(model, tokenizer, processor, steps)
    model.save_pretrained(folder)


def _train(model: Any, tokenizer: Any, processor: Any, steps: int) -> None:
    known = [combination for combination in combinations() if combination not in set(unseen())]
    rng = np.random.default_rng(0)
    drawn = 24
    pixels = torch.stack(
        [processor(images=[draw(one, rng) for _ in range(drawn)], return_tensors="pt")["pixel_values"] for one in known]
    )
    tokens = torch.tensor([tokenizer.encode(caption(one)).ids for one in known])
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.2)
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 20) * (1 - step / steps)
        takes = torch.from_numpy(rng.integers(0, drawn, len(known)))
        loss = model(input_ids=tokens, pixel_values=pixels[torch.arange(len(known)), takes], return_loss=True).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
